"""A base from a hub on loopback: what is fetched, resumed, taken from the cache, and refused with which words."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from braid_common.base.files import base_digest, base_file_names
from braid_common.hub.errors import HubDiskError, HubError, HubUnreachableError
from braid_common.hub.fetch import fetch, fetch_config
from braid_common.hub.model_id import HubId
from tests.braid_common.hub.conftest import Heard
from tests.fakes.hub import Break, FakeHub
from tests.fakes.models.flan_t5 import NOT_FETCHED, SMALL, XL, config_json, small_repo

pytestmark = pytest.mark.slow  # a hub of its own for every case

WEIGHTS = "model.safetensors"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_file_is_fetched_with_what_a_base_needs(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """config.json, tokenizer.json and the weights, at the commit that the branch means, and nothing else; the size is
    said before, and the files lie where transformers looks for them."""
    fetched = fetch(HubId(SMALL), heard)

    repo = hub.repos[SMALL]
    assert fetched.model == HubId(SMALL, repo.commit)
    assert fetched.folder == cache / "models--google--flan-t5-small" / "snapshots" / repo.commit
    assert bytes_of(fetched.folder) == {name: repo.files[name] for name in ("config.json", "tokenizer.json", WEIGHTS)}
    assert hub.fetched() == {"config.json", "tokenizer.json", WEIGHTS} and not hub.fetched() & NOT_FETCHED.keys()
    assert heard.lines == [f"fetching {fetched.model.shown} from {hub.url}: 1 file of weights, 64.0 KiB, into {cache}"]
    assert heard.bytes_done == sorted(heard.bytes_done) and heard.bytes_done[-1] == heard.total_bytes == 65536
    assert (cache / "models--google--flan-t5-small" / "refs" / "main").read_text() == repo.commit


def test_shards_are_fetched_with_their_index(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """All shards that the index names; the pickled ones stay where they are."""
    folder = fetch(HubId(XL), heard).folder

    shards = {f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    assert shards <= set(base_file_names(folder))
    assert (folder / "model.safetensors.index.json").is_file()
    assert not [name for name in hub.fetched() if "pytorch" in name]
    assert "2 files of weights" in heard.lines[0]


def test_what_is_whole_is_taken_without_a_request(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """A commit never changes; a branch is asked for, and costs no download while it means the same."""
    pinned = fetch(HubId(XL), heard).model
    hub.asked.clear()

    again = fetch(pinned, heard)
    assert again.model == pinned and hub.asked == []
    assert fetch(HubId(XL, "main"), heard) == again and hub.downloads() == []


def test_a_branch_that_moved_is_fetched_anew(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """The old commit stays what it was."""
    old = fetch(HubId(SMALL), heard)
    hub.repos[SMALL] = small_repo(b"better weights")

    new = fetch(HubId(SMALL), heard)
    assert new.model != old.model and base_digest(new.folder) != base_digest(old.folder)
    assert fetch(old.model, heard) == old


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_break_goes_on_where_it_was(hub: FakeHub, cache: Path, heard: Heard, is_reset: bool) -> None:
    """A closed or reset connection costs what was on its way, not what has come."""
    hub.breaks = [Break(40_000, is_reset)]

    folder = fetch(HubId(SMALL), heard).folder

    first, second = hub.downloads(WEIGHTS)
    assert first.range == "" and second.range.startswith("bytes=")
    begun = int(second.range.removeprefix("bytes=").removesuffix("-"))
    assert begun > 0 or is_reset  # a reset may lose all that lay in the buffers
    assert (folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


class Killed(Heard):
    """A listener that ends the process, as Ctrl-C and a power cut do, once so much is here."""

    def moved(self, done_bytes: int, total_bytes: int) -> None:
        if done_bytes >= 40_000:
            raise KeyboardInterrupt


def test_a_later_process_goes_on_too(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """Killed in the middle of a large file: the next start says how much is here, and asks for the rest alone."""
    with pytest.raises(KeyboardInterrupt):
        fetch(HubId(SMALL), Killed())
    hub.asked.clear()

    folder = fetch(HubId(SMALL), heard).folder

    (rest,) = hub.downloads(WEIGHTS)
    assert int(rest.range.removeprefix("bytes=").removesuffix("-")) == 40 * 1024  # whole chunks of 1024
    assert "(40.0 KiB are here already)" in heard.lines[-1]
    assert (folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_a_storage_without_ranges_sends_all_again(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """What is sent twice is not kept twice."""
    hub.breaks, hub.ignores_ranges = [Break(30_000)], True

    folder = fetch(HubId(SMALL), heard).folder

    assert (folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_bytes_that_changed_on_the_way_are_refused(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """Nothing of them stays, and the next attempt is clean."""
    hub.spoils = True
    with pytest.raises(HubError, match="came damaged") as caught:
        fetch(HubId(SMALL), heard)
    assert "try again" in caught.value.hint
    hub.spoils = False

    assert (fetch(HubId(SMALL), heard).folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_a_hub_that_stays_away_ends_it_and_keeps_what_came(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """Every break is said; in the end the error names the hub and what else works."""
    hub.breaks = [Break(20_000)] + [Break(0)] * 40

    with pytest.raises(HubUnreachableError) as caught:
        fetch(HubId(SMALL), heard)

    assert hub.url in caught.value.message and "copy the model's folder" in caught.value.hint
    assert [line for line in heard.lines if "broke off" in line]
    hub.breaks.clear()
    assert (fetch(HubId(SMALL), heard).folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_a_removed_blob_is_fetched_again(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """A link into nothing is no file."""
    fetched = fetch(HubId(SMALL), heard)
    (fetched.folder / WEIGHTS).resolve().unlink()

    assert (fetch(fetched.model, heard).folder / WEIGHTS).read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_a_config_alone_needs_no_weights(hub: FakeHub, cache: Path) -> None:
    """`plan` asks for numbers."""
    folder = fetch_config(HubId(SMALL))

    assert bytes_of(folder) == {"config.json": config_json()} and hub.fetched() == {"config.json"}


# --- tokens --------------------------------------------------------------------------------------------------------


def test_a_token_opens_a_private_model_and_stays_with_the_hub(
    hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_TOKEN goes to the hub, and not to the storage that the hub sends us to."""
    hub.repos[SMALL].token = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")

    fetch(HubId(SMALL), heard)

    assert {ask.token for ask in hub.asked if not ask.to_storage} == {"hf_right"}
    assert {ask.token for ask in hub.asked if ask.to_storage} == {""}


# --- offline and unreachable ---------------------------------------------------------------------------------------


def gone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens on discard


def offline(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def out_of_order(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.statuses = [503] * 100


@pytest.mark.parametrize(
    ("away", "reason"), [(gone, "refused"), (offline, "HF_HUB_OFFLINE is set"), (out_of_order, "status 503")]
)
def test_without_an_answer_the_cache_serves(
    away: Callable[..., None],
    reason: str,
    hub: FakeHub,
    cache: Path,
    heard: Heard,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name means the commit that it meant last, and that is said; what is not cached is one error that says why."""
    first = fetch(HubId(SMALL), heard)
    away(hub, monkeypatch)

    assert fetch(HubId(SMALL), heard) == first
    assert heard.lines[-1].endswith(f"taking {first.model.shown} from its cache") and reason in heard.lines[-1]
    with pytest.raises(HubUnreachableError) as caught:
        fetch(HubId(XL), heard)
    assert reason in caught.value.message and XL in caught.value.message and caught.value.hint


def test_half_a_snapshot_is_none(hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights never came, offline mode finds nothing to use."""
    fetch_config(HubId(SMALL))
    offline(hub, monkeypatch)

    with pytest.raises(HubUnreachableError, match="not in the hub's cache"):
        fetch(HubId(SMALL), heard)


# --- the disk ------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_known_before(
    hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sizes are said, and no byte of weights is asked for."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 10**6, 65_535))

    with pytest.raises(HubDiskError, match=r"takes 64.0 KiB, but the disk of .* has 64.0 KiB free") as caught:
        fetch(HubId(SMALL), heard)

    assert "HF_HOME" in caught.value.hint and hub.downloads(WEIGHTS) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_fills_up_on_the_way(
    hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer was quicker: one error, and what has come stays."""

    def full(self: Any, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("braid_common.hub.transfer._Counted.write", full)

    with pytest.raises(HubDiskError, match="No space left on device"):
        fetch(HubId(SMALL), heard)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_not_be_written(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """It is named, with the way out."""
    cache.mkdir(parents=True)
    cache.chmod(0o500)

    with pytest.raises(HubDiskError, match="cannot be written"):
        fetch(HubId(SMALL), heard)


def test_a_cache_that_is_a_file(hub: FakeHub, cache: Path, heard: Heard) -> None:
    """It is named, with the way out."""
    cache.parent.mkdir(parents=True)
    cache.write_text("in the way")

    with pytest.raises(HubDiskError) as caught:
        fetch(HubId(SMALL), heard)

    assert str(cache) in caught.value.message and "HF_HOME" in caught.value.hint


# --- the library ---------------------------------------------------------------------------------------------------


def test_without_the_library_it_is_said_how_to_install_it(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and one that works."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(HubError, match="huggingface_hub is not installed") as caught:
        fetch(HubId(SMALL), heard)

    assert "pip install huggingface_hub" in caught.value.hint
