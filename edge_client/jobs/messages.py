"""What the network side asks of the training worker, and what it hears back. No tensor library is loaded here.

The two processes exchange msgpack frames over a pipe (4-byte little-endian length, then the message); adapters and
updates stay in files that both can read.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quantize.formats import Format as Format
from wire.messages import RoundSpec, RunInfo

Compute = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
CacheDtype = Literal["none", "bf16", "int8"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a board does in a round. `ranks` are strands per weight, in manifest order.

    `checkpointing`: every block is computed again in the backward pass, so that only its input is kept. `cache`: how
    the frozen encoder's output is kept on disk ("none": it is computed for every batch); other than "none" only in
    decoder scope. `frozen_encoder`: in a run of scope "all" this board leaves the encoder as it received it, and trains
    and sketches the decoder alone.
    """

    format: Format
    compute: Compute
    micro_batch: int
    ranks: tuple[int, ...]
    predicted_peak_bytes: int
    budget_bytes: int
    device: Device = "cpu"
    checkpointing: bool = False
    cache: CacheDtype = "none"
    frozen_encoder: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work.

    `adapter_path` holds a `wire.messages.Adapter` ("" for a profile, which runs on the bare base), or the
    `AdapterPatch` to the one in `held_path`, which the worker then replaces by the whole; the result, a
    `Profile` or an `Update`, is written to `result_path` atomically. A probe tries the plan on dummy text, reads no
    adapter and writes nothing. `checkpoint_path` is where a training job saves its place and resumes from, and
    `residual_path` and `pruned_path` where it keeps, from round to round, what quantised uploads lacked and the ranks
    of weights that were pruned ("": nowhere). `threads` 0 takes the processors that are free when the job begins.
    `cache_path` is the folder of the prefix cache, which may take `cache_limit_bytes`; both are read only where the
    plan has a cache.
    """

    kind: Literal["probe", "profile", "train", "evaluate"]
    base_folder: str
    data: str
    device: str
    run: RunInfo
    spec: RoundSpec
    plan: Plan
    adapter_path: str = ""
    held_path: str = ""
    result_path: str = ""
    checkpoint_path: str = ""
    residual_path: str = ""
    pruned_path: str = ""
    cache_path: str = ""
    cache_limit_bytes: int = 0
    rouge: bool = False
    max_eval_examples: int = 200
    threads: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Sent about once a second. `tokens_per_s` counts source and target; `peak_bytes` is the worker's peak RSS."""

    phase: Literal["load", "encode", "profile", "train", "evaluate"]
    step: int
    steps: int
    loss: float
    tokens_per_s: float
    peak_bytes: int


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The job's numbers: loss, n_examples, tokens_per_s, peak_bytes, seconds…; an evaluation adds rouge1, rouge2 and
    rougeL (0…1)."""

    values: dict[str, float]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """An expected error of the worker, to be raised again on the network side as the ClientError of `exit_code`."""

    exit_code: int
    message: str
    hint: str


Event = Progress | Done | Failed
