"""Text of a simulated fleet: ten sources, and how they are spread over boards.

The sources are of several tasks, so that boards differ: docstrings, dialogues, abstracts and instructions; or of one
task and ten clients of it. What of them the builtin base has read is in its model card (builtin_base/model/README.md).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import numpy as np

from benchmarks.simulation.text_sets import CLIENTS, LIBRARIES, by_client, largest, read_whole
from braid_common.atomic_file import write_atomically
from braid_common.example import Example
from braid_common.seeds import derive_seed

Partition = Literal["library", "dirichlet-0.1", "dirichlet-1", "coffee", "MTS-Dialog", "docstrings"]
"""Each board has one of ten sources of several tasks, or draws from all of these, its shares Dirichlet(α); or all have
one task, and each a scenario of coffee orders, a section of medical notes, or a library of its own."""

Task = Literal["several", "coffee", "MTS-Dialog", "docstrings"]

DIRICHLET = "dirichlet-"
N_SOURCES = 10

ALL_LIBRARIES = (*LIBRARIES, "accelerate", "aiohttp", "peft", "sympy", "torch", "transformers")
FILES = {"MTS-Dialog": "mtsdialog.train.jsonl", "SciTLDR": "scitldr.train.jsonl"}
DOLLY = "dolly.train.jsonl"
CATEGORIES = ("classification", "closed_qa", "information_extraction", "summarization")
"""Dolly's categories whose instructions come with a text, and the one with the shortest answers."""

POOL_EXAMPLES = 720
"""Examples that are kept of a source: all that its boards can hold in any partition is drawn from these."""

HELD_OUT_EXAMPLES = 120
"""Part of those that is kept apart; of a small source a third of what it has."""

SEED = 5


FORMS: Mapping[Partition, Mapping[str, Any]] = {
    "coffee": {"max_source_tokens": 192, "max_target_tokens": 32, "truncate_source": "start"},
    "MTS-Dialog": {"max_source_tokens": 128, "max_target_tokens": 32},
}
"""How texts are cut that need more than the defaults: an agent's next step is decided at the end of a dialogue."""


class Pool(msgspec.Struct, frozen=True):
    """One source's pairs (source, target)."""

    name: str
    train: tuple[tuple[str, str], ...]
    held_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class BoardText:
    """One board's text, to train on and to be judged by."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


class _Record(msgspec.Struct):
    source: str
    target: str
    category: str


def task_of(partition: Partition) -> Task:
    """The task whose sources a partition spreads."""
    return "several" if partition == "library" or partition.startswith(DIRICHLET) else cast(Task, partition)


def load_pools(data_folder: Path, folder: Path, partition: Partition) -> tuple[Pool, ...]:
    """The sources of a partition, from a file in `folder` if they were read before. Raises DataError where one is not
    there."""
    task = task_of(partition)
    cache = folder / f"pools-{task}.json"
    if not cache.exists():
        write_atomically(cache, msgspec.json.encode(_read_pools(data_folder, task)))
    return msgspec.json.decode(cache.read_bytes(), type=tuple[Pool, ...])


def boards(pools: Sequence[Pool], partition: Partition, seed: int, n_train: int, n_held_out: int) -> list[BoardText]:
    """Texts of as many boards as there are sources, each with `n_train` and `n_held_out` examples.

    Dirichlet: each board's shares are drawn from Dir(α, …, α) and its examples by them (Hsu, Qi and Brown 2019, arXiv
    1909.06335); no example is held by two boards while a source lasts.
    """
    shares = source_shares(partition, len(pools), seed)
    train = deal([pool.train for pool in pools], shares, n_train, derive_seed(seed, "train"))
    held_out = deal([pool.held_out for pool in pools], shares, n_held_out, derive_seed(seed, "held-out"))
    return [BoardText(_examples(mine), _examples(apart)) for mine, apart in zip(train, held_out, strict=True)]


def source_shares(partition: Partition, n_sources: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Part of each board's text that each source has, (boards, sources); rows sum to 1."""
    if not partition.startswith(DIRICHLET):
        return np.eye(n_sources)
    alpha = float(partition.removeprefix(DIRICHLET))
    draw = np.random.default_rng(derive_seed(seed, "partition", partition))
    shares: np.ndarray[tuple[int, int], np.dtype[np.float64]] = draw.dirichlet([alpha] * n_sources, n_sources)
    return shares


def deal(
    piles: Sequence[Sequence[tuple[str, str]]],
    shares: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    n_each: int,
    seed: int,
) -> list[list[tuple[str, str]]]:
    """`n_each` cards for each row of `shares`, from the shuffled piles in these shares. A pile that is used up starts
    again from its first card."""
    draw = random.Random(seed)
    shuffled = [draw.sample(list(pile), len(pile)) for pile in piles]
    taken = [0] * len(piles)
    hands = []
    for row in shares.tolist():
        hand = []
        for index, count in enumerate(whole_counts(row, n_each)):
            pile = shuffled[index]
            hand += [pile[(taken[index] + i) % len(pile)] for i in range(count)]
            taken[index] += count
        hands.append(hand)
    return hands


def whole_counts(shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers near shares·total that sum to it: the largest remainders are rounded up."""
    exact = [share * total for share in shares]
    counts = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for index in order[: total - sum(counts)]:
        counts[index] += 1
    return counts


def _examples(pairs: Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    return tuple(Example(str(i), "", source, target) for i, (source, target) in enumerate(pairs))


def _read_pools(folder: Path, task: Task) -> list[Pool]:
    if task == "docstrings":
        return [_pool(f"docstrings/{name}", _whole(f"builtin:docstrings/{name}")) for name in ALL_LIBRARIES]
    if task in CLIENTS:
        groups = largest(by_client(folder / CLIENTS[task]), N_SOURCES)
        return [_pool(client, _pairs(examples)) for client, examples in groups]
    pools = [_pool(f"docstrings/{name}", _whole(f"builtin:docstrings/{name}")) for name in LIBRARIES]
    pools += [_pool(name, _whole(str(folder / file))) for name, file in FILES.items()]
    lines = (folder / DOLLY).read_bytes().splitlines()
    records = [msgspec.json.decode(line, type=_Record) for line in lines]
    for category in CATEGORIES:
        pairs = [(record.source, record.target) for record in records if record.category == category]
        pools.append(_pool(f"Dolly/{category}", pairs))
    return pools


def _whole(spec: str) -> list[tuple[str, str]]:
    return _pairs(read_whole(spec))


def _pairs(examples: Iterable[Example]) -> list[tuple[str, str]]:
    return [(example.source, example.target) for example in examples]


def _pool(name: str, pairs: Sequence[tuple[str, str]]) -> Pool:
    distinct = sorted(dict(pairs).items())
    drawn = random.Random(derive_seed(SEED, name)).sample(distinct, min(POOL_EXAMPLES, len(distinct)))
    n_held_out = min(HELD_OUT_EXAMPLES, len(drawn) // 3)
    return Pool(name, tuple(drawn[n_held_out:]), tuple(drawn[:n_held_out]))
