"""Simulated fleets train as boards do: real jobs on the builtin base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.simulation.federation import Federation, with_sketch_noise
from benchmarks.simulation.fleet import begin, new_fleet, run_fleet
from benchmarks.simulation.session import SharedSession
from benchmarks.simulation.setting import Setting
from benchmarks.simulation.texts import BoardText
from braid_common.example import Example
from wire.checks import part_rank
from wire.tensors import unpack

pytestmark = pytest.mark.slow

SETTING = Setting(
    rule="braid",
    learning_rate=0.01,
    seed=1,
    mix="uniform",
    rounds=2,
    local_steps=2,
    batch=2,
    n_train=6,
    n_held_out=2,
    max_source_tokens=16,
    max_target_tokens=8,
    sketch_every=2,
)


@pytest.fixture(scope="module")
def session() -> SharedSession:
    return SharedSession()


@pytest.mark.parametrize(
    ("rule", "changes"),
    [("fresh", {}), ("hetlora", {}), ("weave", {"nested": 2}), ("weave", {"n_values": 20_000, "mix": "equal"})],
    ids=str,
)
def test_training_together_is_training_one_by_one(
    rule: str, changes: dict[str, Any], session: SharedSession, tmp_path: Path
) -> None:
    """The updates have the bits of those that the boards' jobs give: frozen, trained and own A, start and penalty, a
    frozen rest of each board's own, nested ranks, weights without a strand."""
    fleet = new_fleet(msgspec.structs.replace(SETTING, rule=rule, **changes), _texts(), tmp_path, session)
    begin(fleet)

    for _ in range(2):
        together, one_by_one = fleet.updates(), fleet.updates(together=False)
        assert together == one_by_one
        fleet.merge(map(fleet.contribution, together))


def test_a_first_basis_can_be_that_of_another_rule(session: SharedSession, tmp_path: Path) -> None:
    """To the bit: the random rows of fedsvd under weave, the sketches' rows of weave under fedsvd."""
    bases = {}
    for rule, basis in (("weave", None), ("weave", "drawn"), ("fedsvd", None), ("fedsvd", "sketched")):
        setting = msgspec.structs.replace(SETTING, rule=rule, basis=basis)
        fleet = new_fleet(setting, _texts(), tmp_path / "bases", session)
        begin(fleet)
        bases[rule, basis] = next(iter(fleet.state.weights.values())).basis.tobytes()

    assert bases["weave", "drawn"] == bases["fedsvd", None] != bases["weave", None] == bases["fedsvd", "sketched"]


def test_boards_can_have_a_multiple_of_their_ranks(session: SharedSession, tmp_path: Path) -> None:
    """Boards send twice as many columns of B as under a rule that trains as many strands as the mix says."""
    sent = {}
    for rule, changes in (("fedsvd", {"rank_factor": 2, "max_rank": 32}), ("weave", {})):
        setting = msgspec.structs.replace(SETTING, rule=rule, upload="fp32", **changes)
        fleet = new_fleet(setting, _texts(), tmp_path / rule, session)
        begin(fleet)
        sent[rule] = [len(part.b.data) + len(part.a.data if part.a else b"") for part in fleet.updates()[0].parts]

    shapes = [weight.shape for weight in fleet.state.weights.values()]
    ranks = [size // (rows + columns) for size, (rows, columns) in zip(sent["weave"], shapes, strict=True)]
    assert all(ranks)
    assert sent["fedsvd"] == [2 * rank * rows for rank, (rows, _) in zip(ranks, shapes, strict=True)]


def test_a_round_of_the_cooldown_trains_at_its_smaller_rate(session: SharedSession, tmp_path: Path) -> None:
    """To the bit as a run at that rate: the last of two rounds that all belong to it has a third of the run's."""
    falling = msgspec.structs.replace(SETTING, rule="weave", cooldown=1.0)
    plain = msgspec.structs.replace(SETTING, rule="weave", learning_rate=SETTING.learning_rate / 3)
    fleets = [new_fleet(setting, _texts(), tmp_path / setting.rule, session) for setting in (falling, plain)]
    for fleet in fleets:
        begin(fleet)
        fleet.round = 1  # one round has closed

    of_falling, of_plain = (fleet.updates() for fleet in fleets)

    assert [update.parts for update in of_falling] == [update.parts for update in of_plain]


def test_boards_that_prune_begin_at_what_they_last_sent(session: SharedSession, tmp_path: Path) -> None:
    """Weight for weight; another fleet in the same folder begins at the planned ranks."""
    setting = msgspec.structs.replace(SETTING, rule="hetlora", learning_rate=0.3)
    fleet = new_fleet(setting, _texts(), tmp_path, session)
    begin(fleet)
    planned = begun = _begun(fleet)
    for _ in range(3):
        updates = fleet.updates()
        sent = [tuple(part_rank(part) for part in update.parts) for update in updates]
        assert all(last <= first for a, b in zip(begun, sent, strict=True) for first, last in zip(a, b, strict=True))
        fleet.merge(map(fleet.contribution, updates))
        begun = _begun(fleet)
        assert begun == sent

    assert begun != planned
    assert _begun(new_fleet(setting, _texts(), tmp_path, session)) == planned


def _begun(fleet: Federation) -> list[tuple[int, ...]]:
    """The ranks at which the next round begins, of each board."""
    return [fleet.planned_ranks(board) for board in range(len(fleet.boards))]


def test_a_run_learns_and_counts_bytes(session: SharedSession, tmp_path: Path) -> None:
    """Losses fall on text this small; bytes grow with every round, and downloads as differences take fewer."""
    setting = msgspec.structs.replace(SETTING, evaluate_every=1)
    whole = run_fleet(setting, _texts(), tmp_path, session)
    differences = run_fleet(msgspec.structs.replace(setting, differences=True), _texts(), tmp_path, session)

    assert whole.last.mean < whole.points[0].mean
    assert [point.round for point in whole.points] == [0, 1, 2]
    assert 0 < whole.points[1].up_bytes < whole.points[2].up_bytes
    assert differences.last.down_bytes < whole.last.down_bytes
    gains = [run.points[0].mean - run.last.mean for run in (differences, whole)]
    assert gains[0] == pytest.approx(gains[1], rel=0.01)


def test_a_run_that_diverges_says_so(session: SharedSession, tmp_path: Path) -> None:
    """A study goes on: the run counts as failed, with what it had reached."""
    history = run_fleet(msgspec.structs.replace(SETTING, learning_rate=1e30), _texts(), tmp_path, session)

    assert history.failed
    assert history.points[0].round == 0


def test_sketch_noise_has_the_size_that_was_asked_for(session: SharedSession, tmp_path: Path) -> None:
    """As a part of each sketch's root mean square; B stays as it is."""
    fleet = new_fleet(msgspec.structs.replace(SETTING, sketch_every=1), _texts(), tmp_path, session)
    begin(fleet)
    update = fleet.updates([0])[0]

    noisy = with_sketch_noise(update, 0.5, seed=3)

    for before, after in zip(update.parts, noisy.parts, strict=True):
        assert before.sketch is not None
        assert after.sketch is not None
        sketch, change = unpack(before.sketch), unpack(after.sketch) - unpack(before.sketch)
        assert (change**2).mean() ** 0.5 == pytest.approx(0.5 * (sketch**2).mean() ** 0.5, rel=0.1)
        assert before.b == after.b


def _texts() -> list[BoardText]:
    """Ten boards that count, each from another number."""
    return [
        BoardText(tuple(_example(board, i) for i in range(6)), tuple(_example(board, i) for i in (6, 7)))
        for board in range(10)
    ]


def _example(board: int, i: int) -> Example:
    return Example(str(i), "", f"number {board} and number {i}", f"{board} plus {i}")
