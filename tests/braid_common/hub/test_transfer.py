"""A large file that several want at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from braid_common.hub.errors import HubUnreachableError
from braid_common.hub.library import list_files
from braid_common.hub.model_id import HubId
from braid_common.hub.transfer import fetch_large, part_of
from tests.braid_common.hub.conftest import Heard
from tests.fakes.hub import Break, FakeHub
from tests.fakes.models.flan_t5 import SMALL

WEIGHTS = "model.safetensors"


def test_two_at_once_fetch_it_once(hub: FakeHub, cache: Path) -> None:
    """The second one waits, says so, and finds the file."""
    listing = list_files(HubId(SMALL))
    model, file, target = HubId(SMALL, listing.commit), listing.files[WEIGHTS], cache / "blobs" / "x"
    waits, first, second = threading.Event(), Heard(), Heard()

    def held(size_bytes: int) -> None:
        """Keep the first one in the middle of the file until the second one waits for it."""
        if size_bytes == 2048:
            other.start()
            assert waits.wait(10)

    def say(text: str) -> None:
        second.lines.append(text)
        waits.set()

    second.say = say  # type: ignore[method-assign]
    other = threading.Thread(target=fetch_large, args=(model, file, target, second, lambda size_bytes: None))
    fetch_large(model, file, target, first, held)
    other.join(10)

    assert second.lines == ["another process fetches the same file; waiting for it"] and first.lines == []
    assert len(hub.downloads(WEIGHTS)) == 1 and [path.name for path in target.parent.iterdir()] == ["x"]
    assert target.read_bytes() == hub.repos[SMALL].files[WEIGHTS]


def test_pauses_begin_anew_when_bytes_came(
    hub: FakeHub, cache: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten breaks in a row are sat out where each brought something; where nothing comes, the last pause is the end."""
    monkeypatch.setattr("braid_common.hub.transfer.PAUSES_S", (1.0, 2.0))
    listing = list_files(HubId(SMALL))
    model, file, target = HubId(SMALL, listing.commit), listing.files[WEIGHTS], cache / "blobs" / "x"
    slept_s: list[float] = []
    hub.breaks = [Break(5000, is_reset=True)] * 10
    fetch_large(model, file, target, heard, lambda size_bytes: None, slept_s.append)
    assert target.is_file() and set(slept_s) <= {1.0, 2.0}
    target.unlink()
    slept_s.clear()

    hub.breaks = [Break(0)] * 99
    with pytest.raises(HubUnreachableError):
        fetch_large(model, file, target, heard, lambda size_bytes: None, slept_s.append)
    assert slept_s == [1.0, 2.0] and part_of(target).stat().st_size == 0
