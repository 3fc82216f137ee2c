"""The adapter that a board keeps to fetch the next as a difference: whatever is odd about it, the whole is fetched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edge_client.state.held_adapter import FULL_EVERY, HeldAdapter
from wire.codec import encode
from wire.messages import AdapterPatch
from wire.routes import Held

DIFFERENCE = encode(AdapterPatch(since=1, protocol=1, run_id="r", version=2, manifest="0" * 64, parts=()))


@pytest.fixture
def held(tmp_path: Path) -> HeldAdapter:
    """Holds version 3 of run r at ranks 4 and 2."""
    (tmp_path / "held").mkdir()
    made = HeldAdapter(tmp_path / "held")
    made.keep(written(tmp_path), "r", 3, (4, 2))
    return made


def written(folder: Path, data: bytes = b"an adapter") -> Path:
    """A file that was fetched."""
    path = folder / "fetched"
    path.write_bytes(data)
    return path


def test_what_is_kept_is_what_is_asked_with(held: HeldAdapter, tmp_path: Path) -> None:
    """By this process and the next."""
    assert held.of_run("r") == Held(3, (4, 2))
    assert HeldAdapter(tmp_path / "held").of_run("r") == Held(3, (4, 2))
    assert held.path.read_bytes() == b"an adapter"


@pytest.mark.parametrize(
    "harm",
    [
        lambda held: held.path.unlink(),
        lambda held: held.path.write_bytes(b"an adapteR"),
        lambda held: held.path.write_bytes(b""),
        lambda held: held.path.with_name("facts").write_text("{"),
        lambda held: held.path.with_name("facts").write_text('{"run_id": 1}'),
        lambda held: held.path.with_name("facts").write_bytes(b" " * (1 << 20)),
        lambda held: held.path.with_name("facts").unlink(),
        lambda held: held.forget(),
    ],
)
def test_a_lost_or_damaged_file_is_not_asked_with(held: HeldAdapter, harm: Callable[[HeldAdapter], Any]) -> None:
    """Nor is it an error."""
    harm(held)
    assert held.of_run("r") is None


def test_another_run_has_no_use_for_it(held: HeldAdapter) -> None:
    assert held.of_run("s") is None


def test_after_some_differences_in_a_row_the_whole_is_asked_for(held: HeldAdapter, tmp_path: Path) -> None:
    """What each left out adds up no further; the whole begins anew."""
    for version in range(4, 4 + FULL_EVERY):
        assert held.of_run("r") is not None
        held.keep(written(tmp_path), "r", version, (4, 2))
    assert held.of_run("r") is None

    held.forget()  # as when the whole has arrived
    held.keep(written(tmp_path), "r", 20, (4, 2))
    assert held.of_run("r") == Held(20, (4, 2))


def test_a_difference_that_nobody_made_whole_replaces_nothing(held: HeldAdapter, tmp_path: Path) -> None:
    """A task that ended early leaves what is held, and the next difference is to that."""
    fetched = written(tmp_path, DIFFERENCE)
    held.keep(fetched, "r", 4, (4, 2))
    assert held.of_run("r") == Held(3, (4, 2)) and fetched.exists()
    assert held.needed_for(fetched) == str(held.path)

    assert held.give_up(fetched)
    assert held.of_run("r") is None and not fetched.exists()


def test_a_whole_adapter_is_never_given_up(held: HeldAdapter, tmp_path: Path) -> None:
    fetched = written(tmp_path)
    assert not held.give_up(fetched) and not held.give_up(tmp_path / "nothing")
    assert held.needed_for(fetched) == "" and held.of_run("r") is not None and fetched.exists()


def test_a_cut_between_its_two_files_is_seen(held: HeldAdapter, tmp_path: Path) -> None:
    """The file of the new version beside the facts of the old one is not asked with."""
    written(tmp_path, b"the next adapter").replace(held.path)
    assert held.of_run("r") is None


# --- the board -----------------------------------------------------------------------------------------------------


def differing(server: Any, **fields: Any) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Answers a download with the empty difference to version 1."""
    run = server.run()
    difference = {"since": 1, "protocol": 1, "run_id": run.run_id, "version": 2, "manifest": run.manifest, "parts": ()}

    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.query["have"] == "1" and "had" not in request.query
        body = encode(AdapterPatch(**{**difference, **fields}))
        return web.Response(body=body, headers={"ETag": f'"{sha256(body).hexdigest()}"'})

    return answer


def downloads(server: Any) -> list[str]:
    """Versions that were fetched, and what was held."""
    lines = [line for line in server.requests if line.startswith("GET /v1/adapters/")]
    return [f"{line.split('/')[-1].split('?')[0]} have={line.partition('have=')[2].split('&')[0]}" for line in lines]


@pytest.mark.slow
async def test_a_board_fetches_differences(server: Any, board: Any, tmp_path: Path) -> None:
    """The second round's download is asked for as the difference to the first's, and training reads the whole."""
    server.faults["GET /v1/adapters/2"] = [differing(server)]

    await board.join()

    assert downloads(server) == ["1 have=", "2 have=1", "3 have=2"] and len(server.fired) == 1
    assert len(server.commits) == 2 and 3 in server.evaluated


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"since": 0}, {"run_id": "other"}, {"version": 7}, {"manifest": "0" * 64}])
async def test_a_difference_that_does_not_fit_costs_one_more_download(
    server: Any, board: Any, fields: dict[str, Any]
) -> None:
    """The worker refuses it, the board asks for the whole, and the round goes on."""
    server.faults["GET /v1/adapters/2"] = [differing(server, **fields)]

    await board.join()

    assert downloads(server) == ["1 have=", "2 have=1", "2 have=", "3 have=2"]
    assert len(server.commits) == 2 and 3 in server.evaluated


@pytest.mark.slow
async def test_a_held_file_that_is_lost_costs_one_more_download(server: Any, board: Any, tmp_path: Path) -> None:
    """Also where it is lost after the difference has come, and the client is started again."""
    answer = differing(server)

    async def losing(request: web.Request) -> web.StreamResponse:
        (board.folder / "held" / "adapter").unlink()
        return await answer(request)

    server.faults["GET /v1/adapters/2"] = [losing]

    await board.join()

    assert downloads(server) == ["1 have=", "2 have=1", "2 have=", "3 have=2"]
    assert len(server.commits) == 2
