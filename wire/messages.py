"""Every message of the protocol as a typed, frozen struct. No tensor library is loaded here.

Arrays travel as `Tensor`: raw little-endian blocks with dtype and shape; `wire.tensors` turns them into numpy arrays.
Weights are named by their module path in the base (`encoder.block.0.layer.0.SelfAttention.q`), m rows (out) × n columns
(in). A message lists weights in manifest order.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from wire.fields import (
    PLAIN_FILE_NAME,
    Count,
    Digest,
    Dtype,
    ExampleCount,
    Finite,
    Message,
    Name,
    NonNegative,
    RoundId,
    Text,
    VersionDigest,
)
from wire.limits import (
    MAX_BASE_FILES,
    MAX_EPOCH_CHARS,
    MAX_HISTORY,
    MAX_METRICS,
    MAX_NAME_CHARS,
    MAX_SIDE,
    MAX_TENSOR_VALUES,
    MAX_WEIGHTS,
    QUANTISATION_BLOCK,
)
from wire.run import RunInfo

Trains = Literal["b", "a", "both"]  # which factors of B·A a board trains; the others stay as it received them


# --- tensors -------------------------------------------------------------------------------------------------------


class Tensor(Message, frozen=True, kw_only=True):
    """A 2-D array, row-major, little-endian. int8 and int4 carry one fp32 scale per QUANTISATION_BLOCK values.

    int4 packs two values a byte, low half first, values −7…7 as two's complement. Lengths must match the shape."""

    dtype: Dtype
    shape: tuple[Annotated[int, Meta(ge=0, le=MAX_SIDE)], Annotated[int, Meta(ge=0, le=MAX_SIDE)]]  # rows, columns
    data: bytes
    scales: bytes = b""  # fp32, one per block; empty for fp32 and bf16

    def __post_init__(self) -> None:
        values = self.shape[0] * self.shape[1]
        if values > MAX_TENSOR_VALUES:
            raise ValueError(f"tensor of {values} values, at most {MAX_TENSOR_VALUES} are allowed")
        data_bytes, scales_bytes = tensor_bytes(self.dtype, values)
        if len(self.data) != data_bytes or len(self.scales) != scales_bytes:
            raise ValueError(
                f"{self.dtype} tensor of shape {list(self.shape)} needs {data_bytes} bytes of data and {scales_bytes} "
                f"of scales, has {len(self.data)} and {len(self.scales)}"
            )


def tensor_bytes(dtype: Dtype, values: int) -> tuple[int, int]:
    """Bytes of data and of scales that `values` numbers take in `dtype`."""
    blocks = -(-values // QUANTISATION_BLOCK)
    if dtype == "fp32":
        return 4 * values, 0
    if dtype == "bf16":
        return 2 * values, 0
    if dtype == "int8":
        return values, 4 * blocks
    return -(-values // 2), 4 * blocks


# --- calls ---------------------------------------------------------------------------------------------------------


class Enrol(Message, frozen=True, kw_only=True):
    """`POST /v1/devices`. `install_id` is drawn once and kept: the same one gives the same device again."""

    protocol: int
    token: Name  # the join token that `aggregator token create` printed
    install_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    name: Name
    client_version: Name


class Enrolled(Message, frozen=True, kw_only=True):
    """Answer to `Enrol`. The credential goes into `Authorization: Bearer …` of every later call."""

    device: Name
    credential: Name
    run: RunInfo


class Prove(Message, frozen=True, kw_only=True):
    """`POST /v1/proofs`: a board asks whether this is the server where it enrolled, and shows nothing of its own."""

    protocol: int
    device: Name  # as the server called it
    nonce: Digest  # 256 random bits, drawn anew for each question


class Proof(Message, frozen=True, kw_only=True):
    """Answer to `Prove`: HMAC-SHA256 of nonce and device, keyed by the credential's hash (`wire.proof`). For a device
    that is not known here it is just as long, and nobody can check it."""

    proof: Digest
    certificate: Digest | None = None  # the same with the fingerprint of the server's own certificate; nil without TLS


class Renew(Message, frozen=True, kw_only=True):
    """`PUT /v1/credential`: the next credential of a board, which has drawn and kept it."""

    credential: Digest  # SHA-256 of it, as the server keeps those in use


class Version(Message, frozen=True, kw_only=True):
    """A version that the run has published, by the digest of the global adapter as the server stores it."""

    version: RoundId
    digest: Digest


class History(Message, frozen=True, kw_only=True):
    """`GET /v1/versions?after=V`: the versions after V, oldest first; the first MAX_HISTORY of them."""

    versions: Annotated[tuple[Version, ...], Meta(max_length=MAX_HISTORY)] = ()


class NamedTensor(Message, frozen=True, kw_only=True):
    """A tensor and the weight it belongs to."""

    name: Name
    tensor: Tensor


class BaseFile(Message, frozen=True, kw_only=True):
    """A file of the base model's folder: a plain name, never a path."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS, pattern=PLAIN_FILE_NAME.pattern)]
    size_bytes: Count


class BaseFiles(Message, frozen=True, kw_only=True):
    """`GET /v1/base`: what a board without the base fetches with `GET /v1/base/{name}`."""

    files: Annotated[tuple[BaseFile, ...], Meta(min_length=1, max_length=MAX_BASE_FILES)]


class Profile(Message, frozen=True, kw_only=True):
    """The body of an upload to round 0: sketches Y = Ω·G (R × n) of the weights that the board's backward pass reached.

    `scores`: importance of the same weights in the same order, by the run's `importance`; empty where that is "sketch".
    """

    protocol: int
    run_id: Name
    manifest: Digest
    n_examples: ExampleCount
    sketches: Annotated[tuple[NamedTensor, ...], Meta(min_length=1, max_length=MAX_WEIGHTS)]
    scores: Annotated[tuple[NonNegative, ...], Meta(max_length=MAX_WEIGHTS)] = ()


class RoundSpec(Message, frozen=True, kw_only=True, omit_defaults=True):
    """The specification of one round, the same for every board, from the server's schedule to the training on a board,
    also for updates that come late. Profiling is round 0 on version 0."""

    round: RoundId
    version: RoundId  # what boards train on
    version_digest: VersionDigest = ""  # of its content: a server that was restored makes others of the same number
    seed: Count = 0  # names Ω and the data order
    sketch: bool = False  # whether the update is to carry gradient sketches
    trains: Trains = "b"


class Task(Message, frozen=True, kw_only=True, omit_defaults=True):
    """`GET /v1/work`: what a board should do now. `wait`: ask again. Where there is nothing to train, `spec` names only
    the last round that closed and the newest version."""

    kind: Literal["wait", "profile", "train", "evaluate", "finished"]
    run_id: Name
    spec: RoundSpec
    staleness_limit: RoundId = 0  # versions that may be published until the update counts no more; 0: its round's end
    time_left_s: NonNegative | None = None  # until the deadline; nil if none is set
    retry_after_s: NonNegative = 0.0  # least pause before asking again
    renew: bool = False  # whether the board is to renew its credential
    notice: Text = ""  # for the people who run the board
    epoch: Annotated[str, Meta(max_length=MAX_EPOCH_CHARS)] = ""  # the server's start, to be sent with `after`


class AdapterPart(Message, frozen=True, kw_only=True):
    """One weight of what a board begins a round with: frozen_b·frozen_a ((m, s)·(s, n)), which stays as it is, and the
    strands B·A that it trains. `basis` is A (r, n), or (0, n) where boards draw their own; `start_b` is B (m, r), nil
    for zero."""

    name: Name
    frozen_b: Tensor
    frozen_a: Tensor
    basis: Tensor
    start_b: Tensor | None = None


class Adapter(Message, frozen=True, kw_only=True):
    """`GET /v1/adapters/{version}?ranks=8.4.0…`: ranks in manifest order; all 0 sends the whole global adapter as
    frozen factors, to evaluate."""

    protocol: int
    run_id: Name
    version: RoundId
    manifest: Digest
    parts: Annotated[tuple[AdapterPart, ...], Meta(max_length=MAX_WEIGHTS)]


class FactorPatch(Message, frozen=True, kw_only=True):
    """A frozen factor that changed. Without `mix`, `new` takes the place of the one held. With it, the factor is made
    of the one held and of `new`: B = [held B | new]·mix, (m, s0 + k)·(s0 + k, s), or A = mix·[held A over held basis
    over new], (s, s0 + r0 + k)·(s0 + r0 + k, n)."""

    new: Tensor
    mix: Tensor | None = None


class WeightPatch(Message, frozen=True, kw_only=True):
    """Changes of one weight; nil is as the board holds it."""

    name: Name
    frozen_b: FactorPatch | None = None
    frozen_a: FactorPatch | None = None
    basis: Tensor | None = None  # the whole of it
    start_b: Tensor | None = None  # the whole of it


class AdapterPatch(Message, frozen=True, kw_only=True):
    """The other answer to `GET /v1/adapters/{version}?ranks=…&have={since}&had=…`: changes that lead there from the
    adapter of version `since`, cut to the ranks `had`. Its first key, `since`, tells it from an Adapter. Weights of
    which nothing changed are left out."""

    since: RoundId
    protocol: int
    run_id: Name
    version: RoundId
    manifest: Digest
    parts: Annotated[tuple[WeightPatch, ...], Meta(max_length=MAX_WEIGHTS)]


class UpdatePart(Message, frozen=True, kw_only=True):
    """One weight as a board trained it: B (m, r) on the first r rows of its basis, A (r, n) where the round trains
    it, and its sketch (R, n) if asked. B has shape (m, 0) where A alone is trained, or the weight was only sketched."""

    name: Name
    b: Tensor
    a: Tensor | None = None
    sketch: Tensor | None = None


class Update(Message, frozen=True, kw_only=True):
    """The body of an upload. Where only B is trained it is linear: the server sums `n_examples`-weighted B."""

    protocol: int
    run_id: Name
    round: RoundId
    version: RoundId
    version_digest: VersionDigest = ""  # as the task's
    manifest: Digest
    n_examples: ExampleCount
    parts: Annotated[tuple[UpdatePart, ...], Meta(min_length=1, max_length=MAX_WEIGHTS)]


class Receipt(Message, frozen=True, kw_only=True):
    """The server's judgement on an upload. `accepted` false: `reason` says why; the run goes on without it."""

    accepted: bool
    reason: Text = ""


class Report(Message, frozen=True, kw_only=True):
    """`POST /v1/reports`: numbers for people. Those of an `evaluation` are named in `braid_common.metrics`; those of
    `data` are the lengths of the board's texts (`wire.text_lengths`), by which a server may choose the run's.

    `ended`: the client leaves before the run is over; `values` carry exit_status, 0 where it was asked to, and `text`
    says why. No text here is, or quotes, what the board trains on."""

    kind: Literal["data", "plan", "progress", "evaluation", "event", "ended"]
    round: RoundId = 0
    version: RoundId = 0
    text: Text = ""
    values: Annotated[dict[Name, Finite], Meta(max_length=MAX_METRICS)] = msgspec.field(default_factory=dict)


RefusalCode = Literal[
    "bad_request",
    "unauthorised",
    "revoked",
    "protocol_version",
    "not_found",
    "conflict",
    "copied",
    "gone",
    "too_large",
    "busy",
    "full",
    "internal",
]


class Refusal(Message, frozen=True, kw_only=True):
    """Body of every 4xx and 5xx answer. `code` is for programs, the sentences are for people."""

    code: RefusalCode
    message: Text
    hint: Text = ""
