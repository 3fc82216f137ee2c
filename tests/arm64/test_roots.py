"""Folders that are removed: never with what is mounted in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from arm64.roots import mounted_below, remove

TABLE = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
80 22 0:5 / /srv/board/dev rw - devtmpfs devtmpfs rw
81 22 0:6 / /srv/board-two/proc rw - proc proc rw
82 22 254:0 /x /srv/a\040b/in rw - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/srv/board", ["/srv/board/dev"]),
        ("/srv/board/dev", ["/srv/board/dev"]),
        ("/srv/boar", []),
        ("/srv/a b", ["/srv/a b/in"]),
        ("/srv", ["/srv/board/dev", "/srv/board-two/proc", "/srv/a b/in"]),
    ],
)
def test_mounts_in_a_folder_are_found(folder: str, found: list[str]) -> None:
    """By whole names, and with blanks in them."""
    assert mounted_below(Path(folder), TABLE) == found


def test_a_folder_is_removed_or_was_not_there(tmp_path: Path) -> None:
    """Links in it are not followed."""
    kept = tmp_path / "kept"
    (kept / "inner").mkdir(parents=True)
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "link").symlink_to(kept)

    remove(folder)
    remove(folder)

    assert not folder.exists()
    assert (kept / "inner").exists()
