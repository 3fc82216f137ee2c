"""The power goes at any moment of a board's life: old or new is there, never half, and the board goes on from it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from aiohttp.test_utils import TestServer

from braid_common.atomic_file import make_folder, write_atomically
from edge_client.network.transfer import download
from edge_client.network.transport import Transport
from edge_client.state.folder import StateFolder
from edge_client.state.held_adapter import HeldAdapter
from edge_client.state.known_run import read_known_run
from edge_client.state.status import read_status
from edge_client.state.task_files import TaskFiles, begun_task
from tests.fakes.board import FakeBoard
from tests.fakes.power_cut import VARIANTS, Cut, Recording
from tests.fakes.server import FakeServer

NOT_SYNCED = ("status.json", ".new", "trial")
"""Files that are written without fsync: a status that is lost is no loss."""


class TestTheRecording:
    """What the other tests stand on: it finds writers that do not sync."""

    def test_a_writer_that_does_not_sync_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A rename alone leaves an empty file, zeros, or half of it."""
        path = tmp_path / "file"
        path.write_text("old" * 1000)
        with Recording(tmp_path, monkeypatch) as recording:
            (tmp_path / "fresh").write_text("new" * 1000)
            (tmp_path / "fresh").replace(path)

        torn = {cut.variant for cut in recording.cuts if "file" in cut.torn}
        assert torn == {"empty", "zeros", "half"}

    def test_a_folder_that_is_not_synced_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file is safe, its name is not: what was there before is what is left."""
        with Recording(tmp_path, monkeypatch) as recording:
            write_atomically(tmp_path / "file", b"one")
            with monkeypatch.context() as patch:
                patch.setattr("braid_common.atomic_file.sync_folder", lambda folder: None)
                write_atomically(tmp_path / "file", b"two")

        last = [cut for cut in recording.cuts if cut.before == "nothing more"]
        assert {cut.variant: cut.tree["file"] for cut in last}["synced"] == b"one"
        assert not any(cut.torn for cut in recording.cuts), "nothing was promised of the second"

    def test_whole_files_in_new_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`write_atomically` in a folder of `make_folder`: nothing is torn, what was written is there at the end."""
        with Recording(tmp_path, monkeypatch) as recording:
            make_folder(tmp_path / "a" / "b")
            write_atomically(tmp_path / "a" / "b" / "file", b"one")
            write_atomically(tmp_path / "a" / "b" / "file", b"two")

        assert not [str(cut) for cut in recording.cuts if cut.torn] and recording.n_lost > 10
        assert {cut.tree["a/b/file"] for cut in recording.cuts if cut.before == "nothing more"} == {b"two"}
        assert {cut.variant for cut in recording.cuts} == set(VARIANTS)


def opens(folder: Path, *, may_be_new: bool) -> None:
    """A client that starts on `folder` finds everything whole, or nothing."""
    state = StateFolder(folder)
    state.lock()
    identity = state.read_identity()
    assert may_be_new or (identity is not None and identity.credential), "the credential is lost"
    read_known_run(state)
    read_status(folder)
    HeldAdapter(state.held).of_run("run-1")
    task = begun_task(state.work)
    if task is not None:
        files = TaskFiles(state.work, task)
        files.read_plan()
        files.read_values()
    assert not list(folder.glob(".braid-*")) and not list(state.work.glob(".braid-*"))
    state.unlock()


@pytest.fixture
async def life(board: FakeBoard, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """A whole run of a board, from before its enrolment."""
    board.folder.mkdir()
    server.renew = True
    with Recording(board.folder, monkeypatch, NOT_SYNCED) as recording:
        await board.join()
    assert server.state == "finished"
    return recording


@pytest.mark.slow
async def test_no_cut_leaves_half_a_file(life: Recording, tmp_path: Path) -> None:
    """At every operation of the run and in all four ways: each file is old or new, what was promised is there, and the
    folder opens. Once the server has the board as a device, its credential is never lost."""
    assert len(life.cuts) > 100 and life.n_lost > 100, "power cuts that lost something"

    enrolled = next(i for i, cut in enumerate(life.cuts) if cut.before == "open run.json" or "run.json" in cut.tree)
    for i, cut in enumerate(life.cuts):
        assert not cut.torn, f"{cut}: {cut.torn}"
        opens(cut.write_to(tmp_path / f"cut-{i}"), may_be_new=i < enrolled)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("variant", ["synced", "zeros"])
async def test_a_board_goes_on_after_a_cut(
    life: Recording, base_folder: Path, tmp_path: Path, share: float, variant: str
) -> None:
    """From the folder that a cut has left, at a server that knows its device: the run is finished, each update sent
    once."""
    cuts = [cut for cut in life.cuts if cut.variant == variant]
    cut: Cut = cuts[int(share * len(cuts))]
    folder = cut.write_to(tmp_path / "after")
    await goes_on(folder, base_folder, tmp_path)


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "foreign": lambda content: b'{"of": "another program", "version": [1, 2, 3]}\n',
    "noise": lambda content: bytes((7 * i + 3) % 256 for i in range(len(content))),
}


def most_files(cut: Cut) -> tuple[bool, int]:
    """The order of cuts by what is there to be damaged."""
    return "held/facts" in cut.tree, len(cut.tree)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_board_goes_on_with_damaged_files(
    life: Recording, base_folder: Path, tmp_path: Path, damage: str
) -> None:
    """Every file of a round under way but the identity, at once: set aside or made again, without a person; where the
    run's own file is damaged, that is said."""
    cut = max((cut for cut in life.cuts if cut.variant == "half"), key=most_files)
    folder = cut.write_to(tmp_path / "after")
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("identity.json", "lock")
    ]
    for path in files:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    kinds = {path.name.rpartition(".")[2] for path in files}
    assert len(files) > 6 and {"task", "plan", "adapter", "json", "facts"} <= kinds, sorted(kinds)

    board = await goes_on(folder, base_folder, tmp_path)

    assert any("what this board knew of its run" in event["message"] for event in board.events("notice"))


async def goes_on(folder: Path, base_folder: Path, tmp_path: Path) -> FakeBoard:
    """A board that starts on this folder, at a server that knows its device, and ends its run."""
    identity = StateFolder(folder).read_identity()
    fake = FakeServer(base_folder)
    async with TestServer(fake.app()) as running:
        fake.url = str(running.make_url("")).rstrip("/")
        if identity is not None and identity.credential:
            StateFolder(folder).write_identity(msgspec.structs.replace(identity, server=fake.url))
            fake.devices[identity.install_id] = identity.credential
        board = FakeBoard(fake, folder)

        await board.join()

    assert fake.state == "finished" and [round_id for round_id, _ in fake.commits] == [1, 2]
    assert len(fake.devices) == 1
    return board


async def test_a_download_goes_on_after_any_cut(
    server: FakeServer, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts are not synced while they grow: zeros in them are found by the digest, and the file is right in the end."""
    server.devices["1" * 32] = "known"
    path = "/v1/base/model.safetensors"
    whole = (base_folder / "model.safetensors").read_bytes()
    place = tmp_path / "place"
    place.mkdir()

    async def fetch(folder: Path) -> bytes:
        async with Transport(server.url, credential="known") as transport:
            await download(transport, path, folder / "file", backoff=FakeBoard(server, folder).backoff())
        return (folder / "file").read_bytes()

    with Recording(place, monkeypatch) as recording:
        assert await fetch(place) == whole
    assert not any(cut.torn for cut in recording.cuts)
    assert any(cut.tree.get(name) not in (None, whole) for cut in recording.cuts for name in cut.tree), "torn parts"

    step = max(1, len(recording.cuts) // 12)
    for i, cut in enumerate([*recording.cuts[::step], *recording.cuts[-3:]]):
        assert await fetch(cut.write_to(tmp_path / f"cut-{i}")) == whole, str(cut)
