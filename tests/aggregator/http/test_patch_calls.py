"""Downloads as differences, over a real connection with the client's own transport."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from aggregator.downloads.adapters import ranges
from edge_client.engines.adapter_patch import make_whole
from edge_client.network.api import Api
from edge_client.network.errors import RequestError
from edge_client.network.transport import Transport
from edge_client.state.held_adapter import starts_as_difference
from wire.checks import basis_rank
from wire.codec import decode
from wire.limits import VERSION_DIGEST_CHARS
from wire.messages import Adapter
from wire.routes import Held

pytestmark = pytest.mark.slow  # a long table of versions that boards hold


class Fetcher:
    """A board's side of a download, on a server at version 3."""

    def __init__(self, api: Api, board: Any, folder: Path) -> None:
        self.api, self.board, self.folder = api, board, folder
        self.run = board.info

    def ranks(self, rank: int) -> list[int]:
        return [min(rank, basis_rank(weight, self.run.max_rank)) for weight in self.run.weights]

    def held(self, version: int, ranks: Sequence[int]) -> Held:
        """A version as this board was sent it."""
        digest = self.board.server.opened.store.versions().get(version, "")
        return Held(version, tuple(ranks), digest[:VERSION_DIGEST_CHARS])

    async def fetch(self, name: str, version: int, ranks: Sequence[int], held: Held | None = None) -> Path:
        target = self.folder / name
        await self.api.adapter(self.run, version, ranks, target, held)
        return target


@pytest.fixture
async def fetcher(make_folder: Any, start: Any, begin_training: Any, tmp_path: Path) -> Any:
    """Two boards have trained two rounds; the first one fetches."""
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    tasks = await begin_training(boards)
    for version in (2, 3):
        for board, task in zip(boards, tasks, strict=True):
            await board.train(task)
        tasks = [await board.work(after=version - 1) for board in boards]
        assert [task.spec.version for task in tasks] == [version] * 2
    url = str(server.client.make_url("")).rstrip("/")
    async with Transport(url, credential=boards[0].credential) as transport:
        yield Fetcher(Api(transport), boards[0], tmp_path)


async def test_a_difference_is_smaller_and_leads_to_the_version(fetcher: Fetcher) -> None:
    """At the ranks that were held and at others."""
    held = await fetcher.fetch("held", 2, fetcher.ranks(3))
    for name, rank in (("same", 3), ("less", 1), ("none", 0)):
        whole = await fetcher.fetch(f"{name}-whole", 3, fetcher.ranks(rank))

        got = await fetcher.fetch(name, 3, fetcher.ranks(rank), fetcher.held(2, fetcher.ranks(3)))

        assert starts_as_difference(got) and got.stat().st_size < whole.stat().st_size
        make_whole(got, held, fetcher.run, 3, fetcher.ranks(rank))
        made, wanted = (decode(path.read_bytes(), Adapter) for path in (got, whole))
        assert [part.basis for part in made.parts] == [part.basis for part in wanted.parts]


async def test_a_version_held_already_costs_next_to_nothing(fetcher: Fetcher) -> None:
    """A round that is opened again on the version before, or a client that lost its place."""
    ranks = fetcher.ranks(2)
    held = await fetcher.fetch("held", 3, ranks)

    got = await fetcher.fetch("again", 3, ranks, fetcher.held(3, ranks))

    assert got.stat().st_size < 300
    make_whole(got, held, fetcher.run, 3, ranks)
    assert got.read_bytes() == held.read_bytes()


async def test_a_version_that_is_not_here_is_refused_with_those_that_are(fetcher: Fetcher) -> None:
    """The board's hint names what it can have instead."""
    with pytest.raises(RequestError, match="no version 4") as caught:
        await fetcher.fetch("version-4", 4, fetcher.ranks(0))

    assert caught.value.status == 404
    assert caught.value.hint == "The newest is 3; kept are 0-3."


def test_kept_versions_are_told_in_runs() -> None:
    assert ranges([0]) == "0"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"


@pytest.mark.parametrize(
    "odd",
    [
        "too old",
        "not yet",
        "far ahead",
        "another base",
        "beyond the basis",
        "another version 2",
        "a version 2 without a name",
        "version 0",
    ],
)
async def test_what_is_not_known_gives_the_whole(fetcher: Fetcher, odd: str) -> None:
    """Whatever a board says that it holds is no error."""
    ranks = tuple(fetcher.ranks(2))
    held = {
        "too old": Held(0, ranks),
        "not yet": Held(4, ranks),
        "far ahead": Held(99_999, ranks),
        "another base": fetcher.held(2, (1, 2, 3)),
        "beyond the basis": fetcher.held(2, (200,) * len(ranks)),
        "another version 2": Held(2, ranks, "0" * VERSION_DIGEST_CHARS),
        "a version 2 without a name": Held(2, ranks),
        "version 0": Held(0, (0,) * len(ranks)),
    }[odd]
    whole = await fetcher.fetch("whole", 3, ranks)

    got = await fetcher.fetch("odd", 3, ranks, held)

    if odd == "version 0":  # which everybody has: no context; the difference to it is no smaller
        assert not starts_as_difference(got)
    assert got.read_bytes() == whole.read_bytes()


async def test_a_broken_difference_is_gone_on_with(fetcher: Fetcher) -> None:
    """Range and ETag are those of any file: what has come of it is not sent again."""
    ranks, held = fetcher.ranks(2), fetcher.held(2, fetcher.ranks(3))
    whole = (await fetcher.fetch("difference", 3, ranks, held)).read_bytes()
    digest = sha256(whole).hexdigest()
    (fetcher.folder / f"broken.{digest}.part").write_bytes(whole[:-100])
    before_bytes = fetcher.api.transport.traffic.down_bytes

    got = await fetcher.fetch("broken", 3, ranks, held)

    assert got.read_bytes() == whole
    assert fetcher.api.transport.traffic.down_bytes - before_bytes == 100


@pytest.mark.parametrize("query", ["have=x", "have=-1", "have=1&had=", "have=1&had=a", "have=2&had=1..2", "have="])
async def test_nonsense_is_refused(fetcher: Fetcher, query: str) -> None:
    """An address that says nothing is an error, as it is for ranks."""
    ranks = ".".join(map(str, fetcher.ranks(1)))
    board = fetcher.board
    async with board.client.get(f"/v1/adapters/3?ranks={ranks}&{query}", headers=board.headers) as response:
        assert response.status == 400
