"""Results of a job for the server: an Update or a Profile, packed and written as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from braid_common.atomic_file import write_atomically
from edge_client.engines.lean.model.lora import Factors
from edge_client.errors import ConfigError, disk_errors
from edge_client.jobs.messages import ProfileJob, TrainJob
from wire.codec import encode
from wire.dtypes import sketch_dtype
from wire.errors import WireError
from wire.fields import Dtype
from wire.limits import MAX_EXAMPLES, PROTOCOL_VERSION
from wire.messages import NamedTensor, Profile, Update, UpdatePart
from wire.messages import Tensor as WireTensor
from wire.run import Weight
from wire.tensors import pack


def update_message(
    job: TrainJob, n_examples: int, strands: Mapping[str, Factors], sketches: Mapping[str, Tensor]
) -> Update:
    """Pack a round's result.

    Args:
        job: names the run, the round and what it trains.
        n_examples: distinct examples of the round, which weigh the update.
        strands: b (m, r) and a (r, n) fp32 by weight; the factors that the round trains are packed in the upload dtype.
        sketches: Y (R, n) fp32 by weight, packed in the sketch dtype.

    Returns:
        The Update, its parts in manifest order.

    Raises:
        ConfigError: a value is not finite.
    """
    parts = [
        _part(job, weight, strands.get(weight.name), sketches.get(weight.name))
        for weight in job.run.weights
        if weight.name in strands or weight.name in sketches
    ]
    return Update(
        protocol=PROTOCOL_VERSION,
        run_id=job.run.run_id,
        round=job.spec.round,
        version=job.spec.version,
        version_digest=job.spec.version_digest,
        manifest=job.run.manifest,
        n_examples=min(n_examples, MAX_EXAMPLES),
        parts=tuple(parts),
    )


def _part(job: TrainJob, weight: Weight, strands: Factors | None, sketch: Tensor | None) -> UpdatePart:
    trains, upload = job.spec.trains, job.run.settings.upload
    return UpdatePart(
        name=weight.name,
        b=_no_strands(weight.rows) if strands is None or trains == "a" else _packed(strands.b, upload),
        a=None if strands is None or trains == "b" else _packed(strands.a, upload),
        sketch=None if sketch is None else _packed(sketch, sketch_dtype(upload)),
    )


def profile_message(
    job: ProfileJob, n_examples: int, sketches: Mapping[str, Tensor], scores: Mapping[str, float]
) -> Profile:
    """Pack a profile.

    Args:
        job: names the run.
        n_examples: distinct examples that were profiled on.
        sketches: Y (R, n) fp32 of the weights that were sketched.
        scores: the importance of just these weights, or nothing.

    Returns:
        The Profile, in manifest order.

    Raises:
        ConfigError: a value is not finite.
    """
    weights = [weight for weight in job.run.weights if weight.name in sketches]
    dtype = sketch_dtype(job.run.settings.upload)
    return Profile(
        protocol=PROTOCOL_VERSION,
        run_id=job.run.run_id,
        manifest=job.run.manifest,
        n_examples=min(n_examples, MAX_EXAMPLES),
        sketches=tuple(
            NamedTensor(name=weight.name, tensor=_packed(sketches[weight.name], dtype)) for weight in weights
        ),
        scores=tuple(_finite(scores[weight.name], weight.name) for weight in weights) if scores else (),
    )


def write_result(path: Path, message: Update | Profile) -> None:
    """Write the encoded message atomically. Raises DiskError where the disk is full or not ours."""
    data = encode(message)
    with disk_errors(path):
        write_atomically(path, data)


def _packed(tensor: Tensor, dtype: Dtype) -> WireTensor:
    try:
        return pack(tensor.detach().cpu().numpy(), dtype)
    except WireError as error:
        raise ConfigError(
            f"training gave values that cannot be sent ({error})", "lower train.learning_rate in the server's run.toml"
        ) from error


def _finite(score: float, name: str) -> float:
    if not math.isfinite(score):
        raise ConfigError(f"the score of {name} is {score}", "fetch the base model again, or plan fp32 compute")
    return score


def _no_strands(rows: int) -> WireTensor:
    return WireTensor(dtype="fp32", shape=(rows, 0), data=b"")
