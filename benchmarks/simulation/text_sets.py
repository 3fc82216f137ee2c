"""Text sets: real pairs of source and target, divided into training, validation and test parts."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from braid_common.example import Example
from braid_common.seeds import derive_seed
from braid_common.text_form import Cut
from edge_client.data.load import load_data
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec

FILES = {"MTS-Dialog": "mtsdialog", "SciTLDR": "scitldr"}
"""Published sets with parts of their own. A target with several references counts by its first."""

CLIENTS: Mapping[str, str] = {"coffee": "coffee.train.jsonl", "MTS-Dialog": "mtsdialog.train.jsonl"}
"""Sets whose examples name the client that they belong to: a scenario, a section of a medical note."""

LIBRARIES = ("huggingface_hub", "networkx", "numpy", "sqlalchemy")
"""Docstrings that the builtin base was not trained on."""

LIBRARY = "sqlalchemy"
"""Docstrings that the builtin base was not trained on (builtin_base/model/README.md), and enough of one kind that there
is something to learn: on four such libraries together, all scope gained 0.03 nats at most."""

N_HELD_OUT = 200
"""Docstrings for validation, and as many for testing."""

ORDERS = "coffee"
"""Agents' steps of dialogues that order coffee."""

SEED = 20


@dataclass(frozen=True, slots=True)
class TextSet:
    """Pairs of one task. The parts of a published set are its authors'; docstrings are divided at random. `cut`: the
    part that a longer source loses."""

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    cut: Cut = "end"


def names() -> tuple[str, ...]:
    """The sets that there are."""
    return (f"docstrings/{LIBRARY}", *FILES, ORDERS)


def load_those_there(folder: Path, names: Sequence[str]) -> list[TextSet]:
    """Those of the sets that are there; the others are named on stderr."""
    sets = []
    for name in names:
        try:
            sets.append(load(name, folder))
        except DataError as error:
            print(f"{name} is left out: {error.message}", file=sys.stderr)
    return sets


def load(name: str, folder: Path) -> TextSet:
    """The set `name`, each part shuffled once and for all. Raises DataError where its files or libraries are absent."""
    if name == ORDERS:
        return _orders(folder)
    if name not in FILES:
        pairs = _shuffled(read_whole(f"builtin:{name}"))
        return _text_set(name, pairs[2 * N_HELD_OUT :], pairs[:N_HELD_OUT], pairs[N_HELD_OUT : 2 * N_HELD_OUT])
    stem = FILES[name]
    train, validation, test = (read_whole(str(folder / f"{stem}.{part}.jsonl")) for part in ("train", "val", "test"))
    seen = {(example.source, example.target) for example in (*validation, *test)}
    return _text_set(name, [pair for pair in train if (pair.source, pair.target) not in seen], validation, test)


def read_clients(path: Path) -> list[tuple[str, Example]]:
    """The examples of a published set whose lines name the client that each belongs to, with its name. Raises DataError
    where the file is not there."""
    return [
        (record["client"], Example(str(number), record["client"], record["source"], record["target"]))
        for number, record in enumerate(_records(path))
    ]


def by_client(path: Path) -> dict[str, list[Example]]:
    """The examples of such a set by their client, in the file's order. Raises DataError as `read_clients`."""
    groups: dict[str, list[Example]] = defaultdict(list)
    for client, example in read_clients(path):
        groups[client].append(example)
    return groups


def largest(groups: Mapping[str, list[Example]], n_groups: int) -> list[tuple[str, list[Example]]]:
    """The groups with the most examples, with their names; of equals those whose name comes first."""
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[:n_groups]


def shared_out(examples: Sequence[tuple[str, Example]], n_boards: int, n_each: int) -> list[list[Example]]:
    """Text of boards of which each has clients of its own, dealt in turn by their names: `n_each` examples of those, or
    all where there are no more."""
    clients = sorted({client for client, _ in examples})
    boards = []
    for board in range(n_boards):
        own = set(clients[board::n_boards])
        boards.append(subset([example for client, example in examples if client in own], n_each, board))
    return boards


def subset(examples: Sequence[Example], n_examples: int, seed: int) -> list[Example]:
    """`n_examples` of them, or all where there are no more, drawn by `seed`."""
    draw = random.Random(derive_seed(seed, "subset"))
    return draw.sample(list(examples), min(n_examples, len(examples)))


def read_whole(spec: str) -> list[Example]:
    """All examples of a file or a library, read as a board reads them."""
    data = load_data(DataSpec(spec))
    return [*data.train, *data.held_out]


def _orders(folder: Path) -> TextSet:
    """Steps of coffee orders. Validation has dialogues of its own, since a step's source holds the steps before it; a
    dialogue's end, which says what to do next, is what is kept of a long one."""
    records = _records(folder / CLIENTS[ORDERS])
    dialogues = sorted({_dialogue(record) for record in records})
    apart = set(random.Random(SEED).sample(dialogues, len(dialogues) // 20))
    train, validation = (
        [Example("", "", one["source"], one["target"]) for one in records if (_dialogue(one) in apart) == is_apart]
        for is_apart in (False, True)
    )
    test = [example for _, example in read_clients(folder / "coffee.test.jsonl")]
    return replace(_text_set(ORDERS, train, validation, test), cut="start")


def _dialogue(record: Mapping[str, str]) -> str:
    return record["id"].rpartition("-")[0]


def _records(path: Path) -> list[dict[str, str]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "name the folder with --data-folder") from error
    return [msgspec.json.decode(line, type=dict[str, str]) for line in lines]


def _text_set(name: str, train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]) -> TextSet:
    if not (train and validation and test):
        raise DataError(f"{name} has an empty part", "check the files in --data-folder")
    return TextSet(name, _shuffled(train), _shuffled(validation), _shuffled(test))


def _shuffled(examples: Sequence[Example]) -> tuple[Example, ...]:
    """The examples in an order of its own, whatever the file's: the first few of a file need not stand for it."""
    ordered = sorted(examples, key=lambda example: (example.source, example.target))
    random.Random(SEED).shuffle(ordered)
    return tuple(ordered)
