"""Finding the base: builtin, a folder, the hub; and refusing one that is not the run's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from braid_common.base.files import base_digest
from braid_common.base.t5_config import FLAN_T5
from braid_common.hub.model_id import HubId
from edge_client.base.config import base_config
from edge_client.base.locate import find_here, open_base, pinned_id, require_whole, resolve
from edge_client.errors import BaseModelError, DiskError
from tests.fakes.hub import FakeHub, loopback_hub
from tests.fakes.models.bases import write_base
from tests.fakes.models.flan_t5 import SMALL, small_repo, use_hub
from tests.fakes.runs import TINY_T5
from wire.run import Base

WEIGHTS = (len(HEADER := b'{"a": {"dtype": "U8", "shape": [9], "data_offsets": [0, 9]}}')).to_bytes(
    8, "little"
) + HEADER
WEIGHTS += b"nine byte"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_base(tmp_path, TINY_T5)
    return tmp_path


def test_a_folder_is_itself(folder: Path) -> None:
    """A path that exists is never looked up on the hub."""
    assert resolve(str(folder)) == folder


def test_the_runs_own_base_is_opened(folder: Path) -> None:
    """Equal digests: the folder comes back."""
    assert open_base(str(folder), base_digest(folder)) == folder


def test_another_base_is_refused_with_both_digests(folder: Path) -> None:
    """Twelve digits of each, so that people can compare them."""
    with pytest.raises(BaseModelError) as caught:
        open_base(str(folder), "ab" * 32)

    assert base_digest(folder)[:12] in caught.value.message
    assert "abababababab" in caught.value.message


@pytest.mark.parametrize("size_bytes", [0, 5, 8, 30, len(WEIGHTS) - 9, len(WEIGHTS) - 1])
def test_a_truncated_weights_file_is_called_that(folder: Path, size_bytes: int) -> None:
    """Cut anywhere: the file is named with its size, rather than two digests that differ."""
    digest = base_digest(folder)
    (folder / "model.safetensors").write_bytes(WEIGHTS[:size_bytes])

    with pytest.raises(BaseModelError, match=f"model.safetensors is damaged or truncated: it has {size_bytes} "):
        open_base(str(folder), digest)


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 3}', b'{"a": {"data_offsets": []}}', b"[" * 9999, b"\xff"])
def test_a_header_that_is_none_is_damage(folder: Path, header: bytes) -> None:
    """Whatever stands there: one error type."""
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(BaseModelError, match="damaged"):
        require_whole(folder)


def test_what_is_wrong_with_a_folder_says_more_than_two_digests(folder: Path) -> None:
    """A base that lost its tokenizer on the way is named by that."""
    digest = base_digest(folder)
    (folder / "tokenizer.json").unlink()

    with pytest.raises(BaseModelError, match=r"has no tokenizer\.json: download it"):
        open_base(str(folder), digest)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    """What is missing is said."""
    with pytest.raises(BaseModelError, match=r"config\.json"):
        open_base(str(tmp_path), "ab" * 32)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with google/flan-t5-small, and an empty cache."""
    with loopback_hub({SMALL: small_repo()}) as hub:
        use_hub(monkeypatch, hub, tmp_path / "home")
        yield hub


def test_a_hub_id_is_downloaded(small: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """The hub's cache folder is the base; how far it is goes to standard error alone."""
    commit = small.repos[SMALL].commit

    folder = resolve(SMALL)

    assert folder.name == commit and resolve(f"{SMALL}@{commit}") == folder
    told = capsys.readouterr()
    assert told.err.startswith(f"fetching {SMALL}@{commit[:12]} from {small.url}: 1 file of weights, 64.0 KiB, into ")
    assert told.err.splitlines()[-1].startswith("  64.0 KiB are here, after ") and told.out == ""


def test_a_plan_fetches_no_weights(small: FakeHub) -> None:
    """The numbers of a hub id come from its config.json."""
    assert base_config(SMALL) == FLAN_T5["flan-t5-small"]
    assert small.fetched() == {"config.json"}


def test_a_runs_base_is_found_in_the_cache_and_never_fetched(small: FakeHub) -> None:
    """At the run's own commit, without a request; before it is there, the board is told to look elsewhere."""
    base = Base(model=SMALL, digest="ab" * 32, revision=small.repos[SMALL].commit)
    with pytest.raises(BaseModelError, match="is not on this board"):
        find_here(base)
    assert small.asked == []
    folder = resolve(SMALL)
    small.asked.clear()

    assert find_here(base) == folder and small.asked == []
    with pytest.raises(BaseModelError, match="is no folder here"):
        find_here(Base(model="google/flan-t5-base", digest="ab" * 32))


def test_the_runs_name_means_the_runs_commit(small: FakeHub, folder: Path) -> None:
    """--model without a revision: a branch may have moved since the run was made. Another revision is the user's."""
    base = Base(model=SMALL, digest="ab" * 32, revision="0" * 40)

    assert pinned_id(SMALL, base) == HubId(SMALL, "0" * 40)
    assert pinned_id(f"{SMALL}@main", base) == HubId(SMALL, "main")
    assert pinned_id("a/b", base) == HubId("a/b") and pinned_id(str(folder), base) is None


@pytest.mark.parametrize("is_installed", [True, False])
def test_a_hub_that_gives_nothing_says_what_else_works(
    is_installed: bool, small: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not reachable, or huggingface_hub not installed (None in sys.modules): give a folder."""
    if is_installed:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    else:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(BaseModelError, match=f"^{SMALL} is no folder here, and ") as caught:
        resolve(SMALL)

    assert "folder" in caught.value.hint


def test_a_full_cache_is_the_disks_fault(small: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its status is the one for disks."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=20_000))

    with pytest.raises(DiskError, match=r"has 19\.5 KiB free") as caught:
        resolve(SMALL)

    assert "HF_HOME" in caught.value.hint


@pytest.mark.parametrize("model", ["/no/such/folder", "../nothing", "a/b/c", "flan-t5-small"])
def test_what_is_neither_folder_nor_hub_id_is_refused(model: str) -> None:
    """No network is asked about a mistyped path."""
    with pytest.raises(BaseModelError, match="is no folder"):
        resolve(model)
