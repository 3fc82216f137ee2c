"""Runs of one fleet whose boards each have text of one kind, by one method."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.simulation.federation import Board, Federation
from benchmarks.simulation.session import judge_session, process_session
from benchmarks.simulation.setting import Recipe
from benchmarks.simulation.strands import equal_ranks
from benchmarks.simulation.text_sets import subset
from benchmarks.study.runner import Study
from braid_common.example import Example
from edge_client.data.load import load_data
from edge_client.errors import DataError
from edge_client.jobs.data_spec import DataSpec
from wire.run import Keep, Method, Personal, When

LIBRARIES = ("huggingface_hub", "networkx", "numpy", "sqlalchemy")
"""Docstrings that the builtin base was not trained on, one library a board."""

FILES = {"coffee": "coffee.train.jsonl", "MTS-Dialog": "mtsdialog.train.jsonl"}
"""Sets whose examples name the client that they belong to: a scenario, a section of a medical note."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A method: the local strands of every board, by name of the method, and the weight of `train.keep`."""

    method: Method | None = None
    keep: float = 0.0


CONDITIONS = {
    "global": Condition(),
    "local only": Condition("local"),
    "fine-tuned": Condition("finetune"),
    "Ditto": Condition("ditto"),
    "FedRep": Condition("fedrep"),
    "APFL": Condition("apfl"),
    "PFTT": Condition("pftt"),
    "PFTT, keep": Condition("pftt", keep=1.0),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that all runs of a study share. `n_own`: local strands of a weight; `n_shared`: global ones."""

    rounds: int
    local_steps: int
    batch: int
    learning_rate: float
    n_boards: int
    n_train: int
    n_test: int
    n_own: int
    n_shared: int
    seeds: tuple[int, ...]
    max_source_tokens: int
    max_target_tokens: int


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The name of a run."""

    set: str
    condition: str
    seed: int


class Run(Work, frozen=True, kw_only=True):
    """A run's outcome: each board's loss on its own test text, of the base, of the global adapter, and of its own model
    (the global one where it has none); bytes of all boards; and the largest share of a board that was learnt."""

    base: tuple[float, ...]
    global_: tuple[float, ...]
    own: tuple[float, ...]
    up_bytes: int
    down_bytes: int
    cpu_s: float

    @property
    def key(self) -> Work:
        """The run's name in the study."""
        return Work(set=self.set, condition=self.condition, seed=self.seed)

    @property
    def line(self) -> str:
        """The run in one line."""
        return (
            f"{self.set}, {self.condition}, seed {self.seed}: base {mean(self.base):.4f}, global "
            f"{mean(self.global_):.4f}, own {mean(self.own):.4f} mean, {worst_tenth(self.own):.4f} worst tenth"
        )


class PersonalStudy(Study, frozen=True, kw_only=True):
    """All that is known."""

    settings: Settings
    runs: tuple[Run, ...] = ()


def mean(losses: Sequence[float]) -> float:
    """The mean over boards."""
    return sum(losses) / len(losses)


def worst_tenth(losses: Sequence[float]) -> float:
    """The mean over the worst tenth of boards, of one at least."""
    count = max(1, len(losses) // 10)
    return sum(sorted(losses)[-count:]) / count


# --- text ------------------------------------------------------------------------------------------------------------


def texts(name: str, folder: Path, settings: Settings) -> list[tuple[list[Example], list[Example]]]:
    """Training and test text of each board: of one client, or one library. Raises DataError where it is not there."""
    if name == "docstrings":
        groups = {library: _whole(f"builtin:docstrings/{library}") for library in LIBRARIES}
    else:
        groups = _by_client(folder / FILES[name])
    largest = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))[: settings.n_boards]
    n_test, boards = settings.n_test, []
    for number, (client, examples) in enumerate(largest):
        if len(examples) < 2 * n_test:
            raise DataError(f"{name}: {client} has {len(examples)} examples", "take fewer boards or test examples")
        drawn = subset(examples, n_test + settings.n_train, number)
        boards.append((drawn[n_test:], drawn[:n_test]))
    return boards


def _by_client(path: Path) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = defaultdict(list)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "name the folder with --data-folder") from error
    for number, line in enumerate(lines):
        record = msgspec.json.decode(line, type=dict[str, str])
        client = record["client"]
        groups[client].append(Example(str(number), client, record["source"], record["target"]))
    return groups


def _whole(spec: str) -> list[Example]:
    data = load_data(DataSpec(spec))
    return [*data.train, *data.held_out]


# --- one run, in a worker process ------------------------------------------------------------------------------------


def run_one(work: Work, *, settings: Settings, data_folder: Path, folder: Path) -> Run:
    """All rounds of a fleet, and the losses of every board on its own test text."""
    parts = texts(work.set, data_folder, settings)
    condition = CONDITIONS[work.condition]
    boards = [Board(tuple(train), tuple(test), partial(equal_ranks, rank=settings.n_shared)) for train, test in parts]
    session, judge = process_session(), judge_session()
    with tempfile.TemporaryDirectory(dir=folder) as files:
        fleet = Federation(_recipe(settings, work.seed, condition), boards, Path(files), session)
        base = tuple(fleet.evaluate(board.held_out, session=judge)["loss"] for board in boards)
        fleet.encode_texts()
        fleet.begin()
        for _ in range(settings.rounds):
            fleet.run_round()
            if _has_steps_of_own(condition) and condition.method != "finetune":
                fleet.train_own()
        if condition.method == "finetune":
            fleet.train_own()
        of_all = tuple(fleet.evaluate(board.held_out, session=judge)["loss"] for board in boards)
        own = of_all
        if condition.method is not None:
            own = tuple(fleet.evaluate(b.held_out, session=judge, own=n)["loss"] for n, b in enumerate(boards))
    return Run(
        **msgspec.structs.asdict(work),
        base=base,
        global_=of_all,
        own=own,
        up_bytes=fleet.up_bytes,
        down_bytes=fleet.down_bytes,
        cpu_s=fleet.spent.job_s,
    )


def _has_steps_of_own(condition: Condition) -> bool:
    return condition.method not in (None, "pftt")


def _recipe(settings: Settings, seed: int, condition: Condition) -> Recipe:
    personal = None
    if condition.method is not None:
        when: When = "after" if condition.method == "fedrep" else "beside"
        steps = settings.rounds * settings.local_steps if condition.method == "finetune" else 0
        personal = Personal(
            rank=settings.n_own,
            method=condition.method,
            when=when,
            steps=steps,
            local_blocks=1,
        )
    return Recipe(
        rule="weave",
        learning_rate=settings.learning_rate,
        seed=seed,
        rounds=settings.rounds,
        local_steps=settings.local_steps,
        batch=settings.batch,
        max_source_tokens=settings.max_source_tokens,
        max_target_tokens=settings.max_target_tokens,
        personal=personal,
        keep=Keep(weight=condition.keep) if condition.keep else None,
    )
