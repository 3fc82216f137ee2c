"""The end of a server on a disk that fails: what is told is what ended it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aggregator.errors import DiskError, StateError
from aggregator.http import server
from aggregator.store.folder import Folder


def serve(folder: Folder) -> None:
    server.serve(folder, "127.0.0.1", 0, tls_choice="off", public_url="", say=lambda line: None)


def test_an_address_that_cannot_be_written_is_the_disks_fault(make_folder: Callable[..., Folder]) -> None:
    """It was "a bug" with status 1 (found by `make chaos`)."""
    folder = make_folder({})
    folder.address.mkdir()  # so that writing it fails, and removing it too

    with pytest.raises(DiskError, match=r"server\.json cannot be written"):
        serve(folder)


def test_an_address_that_cannot_be_removed_hides_nothing(
    make_folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that ended the server is told, not the one of tidying up after it."""
    folder = make_folder({})
    folder.address.mkdir()

    async def end(*_: object) -> None:
        raise StateError("the database is damaged", "restore it")

    monkeypatch.setattr(server, "_serve", end)

    with pytest.raises(StateError, match="damaged"):
        serve(folder)


@pytest.mark.parametrize("name", ["run.toml", "config.json", "model.safetensors"])
def test_a_disk_that_cannot_be_read_is_no_wrong_setting_and_no_wrong_base(
    make_folder: Callable[..., Folder], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A unit does not start a server again whose settings or base are wrong; this one has to be (found by `make
    chaos`)."""
    folder, fired = make_folder({}), []
    (folder.root / "base.json").unlink(missing_ok=True)  # what is known of the base's files: they are read again

    def failing(whole: Callable[..., Any]) -> Callable[..., Any]:
        def read(path: Path, *arguments: Any, **options: Any) -> Any:
            if path.name == name:
                fired.append(path)
                raise OSError(errno.EIO, "Input/output error")
            return whole(path, *arguments, **options)

        return read

    for way in ("read_text", "read_bytes", "open"):
        monkeypatch.setattr(Path, way, failing(getattr(Path, way)))

    with pytest.raises(DiskError, match="Input/output error"):
        serve(folder)
    assert fired
