"""Text that boards do not share: to each board that of one client, or of one library."""

from __future__ import annotations

from pathlib import Path

import msgspec

from benchmarks.simulation.text_sets import CLIENTS, LIBRARIES, by_client, largest, read_whole, subset
from braid_common.example import Example
from edge_client.errors import DataError

DOCSTRINGS = "docstrings"

SETS = (DOCSTRINGS, *CLIENTS)


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How much text a study takes: `n_train` and `n_test` examples of each of the `n_boards` largest clients.

    A client with fewer than `n_test` + `n_train` examples gives `n_test` for testing and trains on the rest, of which
    there must be as many again.
    """

    n_boards: int
    n_train: int
    n_test: int


def texts(name: str, folder: Path, sizes: Sizes) -> list[tuple[list[Example], list[Example]]]:
    """Training and test text of each board. Raises DataError where it is not there, or too small."""
    if name == DOCSTRINGS:
        groups = {library: read_whole(f"builtin:docstrings/{library}") for library in LIBRARIES}
    else:
        groups = by_client(folder / CLIENTS[name])
    n_test, boards = sizes.n_test, []
    for number, (client, examples) in enumerate(largest(groups, sizes.n_boards)):
        if len(examples) < 2 * n_test:
            raise DataError(f"{name}: {client} has {len(examples)} examples", "take fewer boards or test examples")
        drawn = subset(examples, n_test + sizes.n_train, number)
        boards.append((drawn[n_test:], drawn[:n_test]))
    return boards
