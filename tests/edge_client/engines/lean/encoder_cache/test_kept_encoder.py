"""An encoder that stays loaded for the texts of later rounds, where the plan has room for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from edge_client.engines.lean import session
from edge_client.engines.lean.encoder_cache import encoder_pass
from edge_client.engines.lean.evaluate import evaluate
from edge_client.engines.lean.session import Session
from edge_client.engines.lean.train import train
from edge_client.jobs.messages import EvaluateJob, Job, TrainJob
from tests.fakes.plans import with_mode
from wire.codec import decode
from wire.messages import Update
from wire.tensors import unpack

pytestmark = pytest.mark.slow

Jobs = Callable[..., Job]


def cached(make_job: Jobs, folder: Path, kept_bytes: int, round_id: int = 1, **mode: Any) -> TrainJob:
    """A round of few of the board's texts, in decoder scope with a cache in `folder`."""
    job = make_job(settings={"scope": "decoder", "batch": 2, "micro_batch": 2})
    assert isinstance(job, TrainJob)
    plan = msgspec.structs.replace(with_mode(job.plan, cache="bf16", **mode), kept_bytes=kept_bytes)
    spec = msgspec.structs.replace(job.spec, round=round_id)
    return msgspec.structs.replace(job, plan=plan, spec=spec, cache_path=str(folder), cache_limit_bytes=1 << 20)


def sent(job: TrainJob) -> list[torch.Tensor]:
    parts = decode(Path(job.result_path).read_bytes(), Update).parts
    return [torch.tensor(unpack(tensor)) for part in parts for tensor in (part.b, part.sketch) if tensor is not None]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A line for each time that a part of the base is read from its files."""
    seen: list[str] = []
    original = session.load_base

    def counted(folder: Path, format: str, **options: Any) -> Any:
        seen.append(format)
        return original(folder, format, **options)

    for module in (session, encoder_pass):
        monkeypatch.setattr(module, "load_base", counted)
    return seen


@pytest.mark.parametrize("mode", [{}, {"format": "bf16", "compute": "bf16"}, {"format": "nf4"}], ids=str)
def test_rounds_are_the_same_to_the_bit(mode: dict[str, Any], make_job: Jobs, tmp_path: Path) -> None:
    """Two rounds, of which the second brings new texts, with the encoder kept and without."""
    updates = []
    for kept_bytes in (0, 1 << 20):
        own = Session()
        for round_id in (1, 2):
            job = cached(make_job, tmp_path / f"cache-{kept_bytes}", kept_bytes, round_id, **mode)
            values = train(job, own)
            assert values["encoded_tokens"] > 0
            updates.append(sent(job))

    for alone, kept in zip(updates[:2], updates[2:], strict=True):
        assert all(torch.equal(one, other) for one, other in zip(alone, kept, strict=True))


def test_nothing_is_read_again_for_new_texts(make_job: Jobs, tmp_path: Path, loads: list[str]) -> None:
    """Where it is kept a second round reads no part of the base; else it reads the encoder's blocks and the decoder."""
    counts = []
    for kept_bytes in (1, 0):
        own = Session()
        train(cached(make_job, tmp_path / f"{kept_bytes}", kept_bytes, 1), own)
        loads.clear()
        values = train(cached(make_job, tmp_path / f"{kept_bytes}", kept_bytes, 2), own)
        assert values["encoded_tokens"] > 0
        counts.append(len(loads))

    assert counts[0] == 0 < counts[1]


def test_texts_that_are_known_need_no_encoder(make_job: Jobs, tmp_path: Path) -> None:
    """A worker that is started again, and encodes nothing, loads the decoder alone."""
    job = cached(make_job, tmp_path / "cache", 1)
    train(job, Session())
    own = Session()

    assert train(job, own)["encoded_tokens"] == 0
    assert own._encoder is None


def test_it_goes_when_there_is_no_room_any_more(make_job: Jobs, tmp_path: Path) -> None:
    """By a leaner plan, and before texts are written."""
    own = Session()
    job = cached(make_job, tmp_path / "cache", 1)

    train(job, own)
    assert own._encoder is not None
    train(cached(make_job, tmp_path / "cache", 0), own)
    assert own._encoder is None

    train(cached(make_job, tmp_path / "other", 1), own)
    assert own._encoder is not None
    shared = {name: getattr(job, name) for name in EvaluateJob.__struct_fields__ if hasattr(job, name)}
    evaluate(EvaluateJob(**{**shared, "rouge": True}), own)
    assert own._encoder is None
