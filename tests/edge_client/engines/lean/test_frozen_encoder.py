"""A board that leaves the encoder as it received it, in a run that trains all weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import Job
from tests.fakes.plans import with_mode
from wire.checks import check_update
from wire.codec import decode
from wire.messages import RoundSpec, Update
from wire.run import RunInfo
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def decoder_ranks(run: RunInfo) -> tuple[int, ...]:
    """No strand of the encoder, unequal numbers of the decoder's, some of them none."""
    return tuple(0 if weight.is_encoder else index % 4 for index, weight in enumerate(run.weights))


def update_of(job: Job) -> Update:
    train(job, Session())
    return decode(Path(job.result_path).read_bytes(), Update)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_decoder_learns_as_if_the_encoder_had_no_strands(
    make_job: Jobs, make_run: Callable[..., RunInfo], checkpointing: bool
) -> None:
    """The same B, so the same gradients, and the same sketches of the decoder, to the last bit; of the encoder, whose
    gradients are not formed, nothing is sent; and the server accepts that."""
    job = make_job(ranks=decoder_ranks(make_run()))
    plan = with_mode(job.plan, checkpointing=checkpointing)
    plain = update_of(msgspec.structs.replace(job, plan=plan))

    frozen = update_of(msgspec.structs.replace(job, plan=with_mode(plan, frozen_encoder=True)))

    check_update(frozen, job.run, RoundSpec(round=1, version=1, sketch=True), ranks=job.plan.ranks)
    decoder = [part for part in plain.parts if part.name.startswith("decoder.")]
    assert [part.name for part in frozen.parts] == [part.name for part in decoder]
    assert len(plain.parts) > len(decoder)
    for ours, theirs in zip(frozen.parts, decoder, strict=True):
        assert np.array_equal(unpack(ours.b), unpack(theirs.b))
        assert ours.sketch is not None and theirs.sketch is not None
        assert np.array_equal(unpack(ours.sketch), unpack(theirs.sketch))
    assert any(np.abs(unpack(part.b)).max(initial=0.0) > 0 for part in frozen.parts)
