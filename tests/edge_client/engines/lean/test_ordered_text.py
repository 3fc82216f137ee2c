"""The text of a job: which examples, in which order, and which of their targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from braid_common.example import Example
from edge_client.data.dataset import Data
from edge_client.engines.contract import Stopped
from edge_client.engines.lean.ordered_text import OrderedText
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.engines.lean.training_state import training_state_key
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.messages import Job

pytestmark = pytest.mark.slow

N_EXAMPLES, N_TARGETS, PASSES = 10, 3, 6


class _Session(Session):
    """A session on examples that a test made."""

    def __init__(self, examples: list[Example]) -> None:
        super().__init__()
        self._examples = examples

    def data(self, spec: DataSpec) -> Data:
        return Data(self._examples, self._examples[:2])


def examples(n_targets: int) -> list[Example]:
    """Sources w0, w1, …; target j of example i is "wI wJ"."""
    targets = [[f"w{20 + i} w{40 + j}" for j in range(n_targets)] for i in range(N_EXAMPLES)]
    return [Example(f"id{i}", "g", f"w{i}", of_i[0], tuple(of_i[1:])) for i, of_i in enumerate(targets)]


def targets_read(job: Job, n_targets: int) -> dict[int, list[int]]:
    """Which target was read in each pass, by example; all ids are checked."""
    text = OrderedText(job, _Session(examples(n_targets)), batch=N_EXAMPLES, steps=PASSES)  # type: ignore[arg-type]
    read: dict[int, list[int]] = defaultdict(list)
    for step in range(PASSES):
        for pair in text.pairs(step):
            of_example, of_target = (id - 3 for id in pair.target[:2])
            assert pair.source[-2] == of_example - 20 + 3, "a target of another example"
            read[of_example - 20].append(of_target - 40)
    return read


def test_each_pass_reads_one_target_and_all_are_read(make_job: Callable[..., Job]) -> None:
    """In twice as many passes as there are targets each is read twice; a repeated job reads the same."""
    read = targets_read(make_job(), N_TARGETS)

    assert set(read) == set(range(N_EXAMPLES))
    assert all(sorted(turns) == sorted([*range(N_TARGETS)] * (PASSES // N_TARGETS)) for turns in read.values())
    assert len({turns[0] for turns in read.values()}) == N_TARGETS, "not every example begins at the same one"
    assert targets_read(make_job(), N_TARGETS) == read


def test_another_round_or_board_draws_anew(make_job: Callable[..., Job]) -> None:
    """The draw is named by run, round, board and example."""
    job = make_job()
    other_board = msgspec.structs.replace(job, board_id="another")  # type: ignore[arg-type]
    other_round = msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, round=2))  # type: ignore[arg-type]

    reads = [targets_read(each, N_TARGETS) for each in (job, other_board, other_round)]

    assert reads[0] != reads[1] and reads[0] != reads[2]


def test_the_held_out_loss_is_of_the_first_target(make_job: Callable[..., Job], tmp_path: Path) -> None:
    """Further targets change neither it nor an example without them; the saved training knows them."""
    job, several = make_job(), examples(N_TARGETS)
    only_trained = [*(Example(e.id, e.group, e.source, e.target) for e in several[:2]), *several[2:]]

    losses = [train(job, _Session(of))["held_out_loss"] for of in (several, only_trained)]  # type: ignore[arg-type]

    assert losses[0] == losses[1]
    assert training_state_key(job, several) != training_state_key(job, examples(1))  # type: ignore[arg-type]


def test_training_resumes_on_the_same_targets(make_job: Callable[..., Job], tmp_path: Path) -> None:
    """A round that was stopped ends in the same update as one that was not."""
    stops = iter([False, True])
    whole, parts = make_job(), make_job(training_state_path=str(tmp_path / "state"))
    train(whole, _Session(examples(N_TARGETS)))  # type: ignore[arg-type]
    once = Path(whole.result_path).read_bytes()  # type: ignore[union-attr]
    session = _Session(examples(N_TARGETS))
    session.wants_stop = lambda: next(stops)
    with pytest.raises(Stopped):
        train(parts, session)  # type: ignore[arg-type]
    train(parts, _Session(examples(N_TARGETS)))  # type: ignore[arg-type]

    assert Path(parts.result_path).read_bytes() == once  # type: ignore[union-attr]
