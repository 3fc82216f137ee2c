"""Error feedback: what quantised uploads lack is sent later, once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edge_client.engines.lean.error_feedback import ErrorFeedback, dropped, read_in
from edge_client.engines.lean.messages import update_message
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job
from wire.codec import decode
from wire.fields import Dtype
from wire.messages import Trains, Update, UpdatePart
from wire.tensors import pack, unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]
ROWS, COLUMNS, RANK = 24, 37, 5
LEVELS = {"int8": 127, "int4": 7}


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthonormal(seed: int, rank: int = RANK) -> Tensor:
    """Rows (rank, n)."""
    rows: Tensor = torch.linalg.qr(draw(seed, COLUMNS, rank))[0].t()
    return rows


def sent_part(wanted: Factors, trains: Trains, dtype: Dtype) -> UpdatePart:
    """What of `wanted` is in a message."""
    return UpdatePart(
        name="w",
        b=pack(wanted.b.numpy() if trains != "a" else wanted.b[:, :0].numpy(), dtype),
        a=None if trains == "b" else pack(wanted.a.numpy(), dtype),
    )


def product(part: UpdatePart, wanted: Factors) -> Tensor:
    """What the server makes of a part: the factor that was not trained is the one it sent."""
    b = torch.tensor(unpack(part.b)) if part.b.shape[1] else wanted.b
    a = wanted.a if part.a is None else torch.tensor(unpack(part.a))
    return b @ a


def gap(rounds: list[Factors], trains: Trains, dtype: Dtype, *, feedback: bool) -> float:
    """‖Σ sent - Σ trained‖ over rounds."""
    residual, total = None, torch.zeros(ROWS, COLUMNS)
    for trained in rounds:
        wanted = trained if residual is None else read_in(residual, trained, trains)
        part = sent_part(wanted, trains, dtype)
        residual = dropped(wanted, part) if feedback else None
        total += product(part, wanted) - trained.b @ trained.a
    return float(total.norm())


def step(rounds: list[Factors], dtype: Dtype) -> float:
    """At most this a quantised B is off, as ‖·‖ of all its values, with rows of length one: half a step each, a step
    being the largest value by the levels, and half as large again for the residual in it."""
    largest = max(float(factors.b.abs().max()) for factors in rounds)
    return 1.5 * 0.5 * largest / LEVELS[dtype] * math.sqrt(ROWS * RANK)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("turns", [False, True])
def test_what_is_sent_adds_up_to_what_was_trained(dtype: Dtype, turns: bool) -> None:
    """Over 60 rounds the sums of products differ by one quantisation step at most, also where the basis turns within
    its row space; without feedback the small entries, always rounded the same way, drift apart."""
    basis, b = orthonormal(1), 0.1 * draw(2, ROWS, RANK)
    b[::6] *= 10  # large values set the step of each block, in which the others are rounded
    turn = [torch.linalg.qr(draw(10 + t, RANK, RANK))[0] if turns else torch.eye(RANK) for t in range(60)]
    rounds = [Factors(b @ q.t(), q @ basis) for q in turn]

    with_feedback = gap(rounds, "b", dtype, feedback=True)

    assert with_feedback <= step(rounds, dtype)
    if not turns:  # a basis that turns dithers what is rounded
        assert gap(rounds, "b", dtype, feedback=False) > 5 * step(rounds, dtype)


@pytest.mark.parametrize("trains", ["a", "both"])
@pytest.mark.parametrize("mixes", [False, True])
def test_trained_rows_are_fed_back_as_well(trains: Trains, mixes: bool) -> None:
    """Where A is trained what is sent stays near as well, to first order, even if the server's SVD mixes and flips the
    strands between rounds; the fixed factor's scale does not matter."""
    b, a = draw(3, ROWS, RANK), draw(4, RANK, COLUMNS)
    rounds = []
    for t in range(60):
        q = torch.linalg.qr(draw(10 + t, RANK, RANK))[0] if mixes else torch.eye(RANK)
        rounds.append(Factors(b @ q.t(), q @ a))

    with_feedback, without = (gap(rounds, trains, "int4", feedback=feedback) for feedback in (True, False))

    once = max(gap([one], trains, "int4", feedback=False) for one in rounds)
    assert with_feedback <= 3 * once
    assert without > (10 if not mixes else 1) * once


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), trains=st.sampled_from(["b", "a", "both"]), dtype=st.sampled_from(["int8", "int4"]))
def test_what_is_dropped_is_wanted_less_sent(seed: int, trains: Trains, dtype: Dtype) -> None:
    """Sent + dropped = wanted, as products, for every kind of round."""
    wanted = Factors(draw(seed, ROWS, 3), draw(seed + 1, 3, COLUMNS))
    part = sent_part(wanted, trains, dtype)

    residual = dropped(wanted, part)

    torch.testing.assert_close(
        product(part, wanted) + residual.b @ residual.a, wanted.b @ wanted.a, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("trains", ["b", "a", "both"])
@pytest.mark.parametrize("rank", [2, 7])
def test_reading_in_is_the_nearest_that_the_factors_can_express(trains: Trains, rank: int) -> None:
    """The change of the product is D projected on the rows of A, the columns of B, or both: of fewer or more strands
    than D has, and what lies outside is lost."""
    residual = Factors(1e-4 * draw(1, ROWS, 3), draw(2, 3, COLUMNS))
    factors = Factors(draw(3, ROWS, rank), draw(4, rank, COLUMNS))
    d = residual.b @ residual.a
    rows, columns = torch.linalg.pinv(factors.a) @ factors.a, factors.b @ torch.linalg.pinv(factors.b)
    expected = {"b": d @ rows, "a": columns @ d, "both": columns @ d + (d - columns @ d) @ rows}[trains]

    read = read_in(residual, factors, trains)

    change = read.b @ read.a - factors.b @ factors.a
    assert (change - expected).norm() < 1e-2 * expected.norm()
    assert trains != "b" or torch.equal(read.a, factors.a)
    assert trains != "a" or torch.equal(read.b, factors.b)


@pytest.mark.parametrize("trains", ["b", "a", "both"])
def test_weak_and_empty_strands_do_not_blow_up(trains: Trains) -> None:
    """Strands of zero and a thousandth carry nothing over, where they would take steps of a thousandfold; values that
    are not finite pass through, for packing to refuse."""
    b, a = draw(3, ROWS, 3), draw(4, 3, COLUMNS)
    b[:, 1], a[1], b[:, 2], a[2] = 0, 0, 1e-3 * b[:, 2], 1e-3 * a[2]
    residual = Factors(0.01 * draw(1, ROWS, 3), draw(2, 3, COLUMNS))

    read = read_in(residual, Factors(b, a), trains)

    assert (read.b - b).norm() < 0.1 * b.norm()
    assert (read.a - a).norm() < 0.1 * a.norm()
    broken = Factors(b * torch.nan, a)
    assert read_in(residual, broken, trains) is broken


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quantised_job(make_job: Jobs, tmp_path: Path) -> Callable[..., Job]:
    """A job of a given round with int4 uploads and a residual file."""

    def make(round_id: int = 1, **changes: Any) -> Job:
        settings = {"upload": "int4"} | changes.pop("settings", {})
        job = make_job(residual_path=str(tmp_path / "residual"), settings=settings, **changes)
        return msgspec.structs.replace(job, spec=msgspec.structs.replace(job.spec, round=round_id))

    return make


def end_round(job: Job, seed: int) -> tuple[Update, dict[str, Factors]]:
    """The end of a round that trained random B; the update, and what was wanted in it."""
    name = next(weight.name for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True) if rank)
    rows = next(weight for weight in job.run.weights if weight.name == name)
    feedback = ErrorFeedback(job)
    wanted = feedback.added({name: Factors(draw(seed, rows.rows, 3), torch.eye(3, rows.columns))})
    update = update_message(job, 5, wanted, {})
    feedback.keep(wanted, update)
    return update, wanted


def test_a_round_that_is_ended_twice_counts_once(quantised_job: Jobs) -> None:
    """A board that died between residual and result ends the round with the same bytes, and so does the next round."""
    end_round(quantised_job(1), 1)
    second, _ = end_round(quantised_job(2), 2)
    file = Path(quantised_job(2).residual_path).read_bytes()

    for _ in range(2):
        again, _ = end_round(quantised_job(2), 2)
        assert again == second
        assert Path(quantised_job(2).residual_path).read_bytes() == file

    _, wanted = end_round(quantised_job(3), 3)
    (name,) = wanted
    first = end_round_from_nothing(quantised_job, 1, None)
    lacked = end_round_from_nothing(quantised_job, 2, first)
    expected = draw(3, len(lacked), 3) + lacked
    torch.testing.assert_close(wanted[name].b, expected, rtol=0, atol=1e-5)


def end_round_from_nothing(make: Jobs, seed: int, before: Tensor | None) -> Tensor:
    """What B of round `seed` lacked, without any file: on rows of the identity the residual is E itself."""
    job = make(seed)
    rows = next(weight.rows for weight, rank in zip(job.run.weights, job.plan.ranks, strict=True) if rank)
    b = draw(seed, rows, 3) + (0 if before is None else before)
    return b - torch.tensor(unpack(pack(b.numpy(), "int4")))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign run", "foreign device"])
def test_a_file_that_cannot_be_used_is_said_and_left_out(quantised_job: Jobs, damage: str) -> None:
    """A cut file, one flipped bit anywhere, another run's or another board's: residuals start from zero, and it is
    told; a file that is not there is nothing to tell."""
    job = quantised_job(1)
    assert not ErrorFeedback(job).is_lost
    end_round(job, 1)
    path, after = Path(job.residual_path), quantised_job(2)
    data = path.read_bytes()
    if damage == "foreign run":
        after = msgspec.structs.replace(after, run=msgspec.structs.replace(after.run, run_id="other"))
    elif damage == "foreign device":
        after = msgspec.structs.replace(after, board_id="other")
    places = range(len(data) - 1, 0, -len(data) // 7) if damage == "flip" else range(1)
    for place in places:
        if damage == "flip":
            path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        elif not damage.startswith("foreign"):
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")

        feedback = ErrorFeedback(after)

        assert feedback.is_lost
        trained = {"w": Factors(draw(1, ROWS, 2), draw(2, 2, COLUMNS))}
        assert feedback.added(trained) == trained

    end_round(after, 2)
    assert not ErrorFeedback(after).is_lost


@pytest.mark.parametrize("changed", [{"upload": "bf16"}, {"upload": "fp32"}, {"own_basis": True}])
def test_no_file_where_nothing_is_fed_back(quantised_job: Jobs, changed: dict[str, Any]) -> None:
    """Uploads that drop next to nothing, and rows that are drawn anew each round, leave no file."""
    job = quantised_job(1, settings=changed)

    end_round(job, 1)

    assert not Path(job.residual_path).exists()


def test_weights_that_rest_keep_their_residual(quantised_job: Jobs) -> None:
    """A weight that a round leaves out is made up for in a later one."""
    _, wanted = end_round(quantised_job(1), 1)
    (name,) = wanted
    job = quantised_job(2)
    resting = ErrorFeedback(job)

    resting.keep({}, update_message(job, 5, {}, {}))

    zeros = {name: Factors(torch.zeros_like(wanted[name].b), wanted[name].a)}
    assert ErrorFeedback(quantised_job(3)).added(zeros)[name].b.any()


@pytest.mark.parametrize("trains", ["b", "a", "both"])
def test_rounds_of_training_feed_back(quantised_job: Jobs, trains: Trains) -> None:
    """Two rounds through the trainer: the first leaves a file, the second differs from one without it by what the
    first lacked, and a repeated first round gives the same bytes again."""
    first = quantised_job(1, trains=trains, starts=True)
    train(first, Session())
    bytes_of_first = Path(first.result_path).read_bytes()

    train(first, Session())
    repeated = Path(first.result_path).read_bytes()
    second = quantised_job(2, trains=trains, starts=True)
    values = train(second, Session())
    fed = decode(Path(second.result_path).read_bytes(), Update)
    train(msgspec.structs.replace(second, residual_path=""), Session())
    plain = decode(Path(second.result_path).read_bytes(), Update)

    assert repeated == bytes_of_first
    assert "residual_lost" not in values
    assert any(ours != theirs for ours, theirs in zip(fed.parts, plain.parts, strict=True))
    Path(first.residual_path).write_bytes(json.dumps({}).encode())
    assert train(second, Session())["residual_lost"] == 1.0
    assert decode(Path(second.result_path).read_bytes(), Update) == plain
