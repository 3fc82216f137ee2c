"""Messages between the network process and the training worker: jobs one way, events the other.

The two processes exchange msgpack frames over a pipe (`edge_client.jobs.frames`); adapters and updates stay in files
that both can read. No tensor library is loaded here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from braid_common.text_form import TextForm
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.reward_spec import Reward
from quantize.formats import Format as Format
from wire.messages import RoundSpec
from wire.run import RunInfo

Compute = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]
CacheDtype = Literal["none", "bf16", "int8"]


class TrainingMode(msgspec.Struct, frozen=True, kw_only=True):
    """How a board trains: all of a plan that is chosen beside its strands.

    Attributes:
        format: number format of the frozen base in memory.
        compute: number format of products.
        micro_batch: examples of one forward and backward pass; gradients of several are added up.
        checkpointing: every block is computed again in the backward pass, so that only its input is kept.
        cache: how the frozen encoder's output is kept on disk ("none": it is computed for every batch); other than
            "none" only in decoder scope.
        frozen_encoder: in a run of scope "all" this board leaves the encoder as it received it, and trains and sketches
            the decoder alone.
        device: where training runs.
    """

    format: Format
    compute: Compute
    micro_batch: int
    checkpointing: bool = False
    cache: CacheDtype = "none"
    frozen_encoder: bool = False
    device: Device = "cpu"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A board's plan for a round.

    Attributes:
        mode: how it trains.
        ranks: strands per weight, in manifest order.
        predicted_bytes: the worker's peak memory, from shapes alone.
        expected_peak_bytes: the same, calibrated by what was measured on this board.
        budget_bytes: what the worker may take.
        kept_bytes: what it takes beyond that peak because the encoder stays loaded, for the texts of later rounds; 0
            where it is read from the base's files each time that texts are new.
    """

    mode: TrainingMode
    ranks: tuple[int, ...]
    predicted_bytes: int
    expected_peak_bytes: int
    budget_bytes: int
    kept_bytes: int = 0

    @property
    def whole_peak_bytes(self) -> int:
        """The peak to expect with what is kept."""
        return self.expected_peak_bytes + self.kept_bytes


class BaseJob(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that every job has.

    `base_folder` holds the base, `data` names the data set. `engine` names the training engine that
    carries the job out (`edge_client.engines`). `threads` 0 takes the processors that are free when the job begins.
    """

    base_folder: str
    data: DataSpec
    run: RunInfo
    spec: RoundSpec
    plan: Plan
    engine: str = "lean"
    threads: int = 0


class TextJob(BaseJob, frozen=True, kw_only=True):
    """A job that reads the board's text.

    The encoder's output for that text is kept in the folder `cache_path`, which may take `cache_limit_bytes`; both are
    read only where the plan has a cache.
    """

    cache_path: str = ""
    cache_limit_bytes: int = 0


class ProbeJob(BaseJob, frozen=True, kw_only=True, tag="probe"):
    """Try the plan on dummy text, to measure what it takes. No adapter is read, nothing is written."""


class ProfileJob(TextJob, frozen=True, kw_only=True, tag="profile"):
    """Sketch the gradients of the bare base; the `Profile` is written to `result_path` atomically.

    `board_id` is the board's name at the server, which the order of its examples depends on.
    """

    board_id: str
    result_path: str


class TrainJob(TextJob, frozen=True, kw_only=True, tag="train"):
    """Train a round; the `Update` is written to `result_path` atomically.

    Attributes:
        board_id: the board's name at the server, which the order of its examples depends on.
        adapter_path: the `wire.messages.Adapter` to start from, or the `AdapterPatch` that leads to it from the one in
            `held_path`; the worker then replaces the patch by the whole.
        held_path: "" where the adapter is whole.
        result_path: for the update.
        training_state_path: where the training is saved, and resumed from; "" saves nothing.
        residual_path: what quantised uploads lacked, kept from round to round; "" keeps nothing.
        pruned_path: the ranks of weights that were pruned, kept from round to round; "" keeps nothing.
        max_eval_examples: held-out examples that the received adapter is evaluated on, at most.
        personal_path: the board's local strands, kept from round to round where the run's settings have them; "" trains
            none.
        rewards: the board's own, where the round learns from them; empty where it learns from right answers.
    """

    board_id: str
    adapter_path: str
    held_path: str = ""
    result_path: str
    training_state_path: str = ""
    residual_path: str = ""
    pruned_path: str = ""
    max_eval_examples: int = 200
    personal_path: str = ""
    rewards: tuple[Reward, ...] = ()


class PersonalJob(TextJob, frozen=True, kw_only=True, tag="personal"):
    """Train this board's own strands in steps of their own, over a global adapter that is frozen; nothing is sent.

    `personal_path` keeps them, the other paths are as in `TrainJob`. `ranks`: those that the adapter was cut to.
    """

    board_id: str
    adapter_path: str
    held_path: str = ""
    personal_path: str
    ranks: tuple[int, ...]
    max_eval_examples: int = 200


class EvaluateJob(TextJob, frozen=True, kw_only=True, tag="evaluate"):
    """Score an adapter on held-out text.

    `adapter_path` and `held_path` are as in `TrainJob`, with "" for the bare base. `rouge`: texts are written and
    compared too. `beside_base`: the bare base is scored as well, to compare with. `personal_path`: the board's own
    strands, which are scored over the adapter as well, where there are some; "" for none.
    """

    adapter_path: str = ""
    held_path: str = ""
    personal_path: str = ""
    rouge: bool = False
    beside_base: bool = False
    max_eval_examples: int = 200


class MeasureJob(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Measure how long the board's texts are, in the tokens of the base in `base_folder` and against the limits of
    `form`. No engine is needed, and nothing is written; the numbers are those of `wire.text_lengths`."""

    base_folder: str
    data: DataSpec
    form: TextForm


AdapterJob = TrainJob | PersonalJob | EvaluateJob
"""A job that reads an adapter."""

EngineJob = ProbeJob | ProfileJob | TrainJob | PersonalJob | EvaluateJob
"""A job that an engine carries out."""

Job = EngineJob | MeasureJob
"""A piece of work for the training worker, told apart by its tag."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Sent about once a second. `tokens_per_s` counts source and target; `peak_bytes` is the worker's peak RSS;
    `unsaved` is why the worker cannot write now what it can do without, "" as long as it can; `left_out` says which
    rewards the round does without, and why."""

    phase: Literal["load", "encode", "profile", "train", "evaluate"]
    step: int
    steps: int
    loss: float
    tokens_per_s: float
    peak_bytes: int
    unsaved: str = ""
    left_out: str = ""


class Parked(msgspec.Struct, frozen=True, tag="parked"):
    """The worker was asked to pause, and now waits between two steps, with its place saved."""


DATA_FACTS = ("data_crc32", "n_train", "n_held_out")
"""Numbers in the `Done` of a job that read the board's data: a checksum of its text, by which a change shows, and how
many examples both parts have."""


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """The job's numbers: loss, n_examples, tokens_per_s, peak_bytes, seconds…; an evaluation adds the scores of
    `braid_common.metrics`, and a measuring has its own."""

    values: dict[str, float]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """An expected error of the worker, to be raised again on the network side as the ClientError of `exit_code`."""

    exit_code: int
    message: str
    hint: str


Event = Progress | Parked | Done | Failed
