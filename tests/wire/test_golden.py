"""Protocol version 1, frozen: bytes, seeds and signs that no change of code may change.

`python tests/wire/test_golden.py` writes the files that are not there and never overwrites one: a new version gets a
new folder. Only while no release speaks version 1 may a file be deleted and written anew, when its message changes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest

import wire.messages as m
import wire.run as r
from braid_common.base.t5_config import T5Config
from braid_common.seeds import derive_seed
from wire.codec import CONTENT_TYPE, decode, encode
from wire.fields import Message
from wire.manifest import manifest_digest, t5_weights
from wire.projection import projection
from wire.run import Personal
from wire.tensors import unpack

DIGEST = "0123456789abcdef" * 4
WEIGHTS = (
    r.Weight(name="decoder.block.0.layer.0.SelfAttention.q", rows=3, columns=5),
    r.Weight(name="decoder.block.0.layer.2.DenseReluDense.wo", rows=5, columns=7),
)
FP32 = m.Tensor(dtype="fp32", shape=(1, 2), data=bytes.fromhex("0000803f000000c0"))  # 1, −2
BF16 = m.Tensor(dtype="bf16", shape=(2, 1), data=bytes.fromhex("803f00c0"))  # 1, −2
INT8 = m.Tensor(
    dtype="int8", shape=(1, 3), data=b"\x7f\x00\x81", scales=bytes.fromhex("0000003f")
)  # 0.5 · (127, 0, −127)
INT4 = m.Tensor(dtype="int4", shape=(3, 1), data=b"\x97\x01", scales=bytes.fromhex("00000040"))  # 2 · (7, −7, 1)
EMPTY = m.Tensor(dtype="fp32", shape=(3, 0), data=b"")
REWARD = r.RewardLearning(samples=8, advantage="baseline", kl=0.5, clip=0.25, reuse=4, warm_rounds=2)
SETTINGS = r.TrainSettings(
    scope="decoder",
    learning_rate=0.001,
    batch=8,
    micro_batch=2,
    local_steps=20,
    max_source_tokens=512,
    max_target_tokens=64,
    sketch_batches=4,
    upload="int8",
    importance="adalora",
    rank=256,
    trains_a=True,
    own_basis=True,
    pruning=True,
    seed=2**53,
)
KEEP = r.Keep(weight=0.5, importance="scores")
PERSONAL = Personal(
    rank=4,
    method="apfl",
    targets=("q", "v"),
    learning_rate=0.01,
    when="after",
    steps=5,
    pull=0.25,
    mix=0.75,
    local_blocks=2,
)
RUN = r.RunInfo(
    protocol=1,
    run_id="run-1",
    state="training",
    base=r.Base(model="google/flan-t5-small", digest=DIGEST, revision="0fc9ddf78a1e988dac52e2dac162b0ede4fd74ab"),
    weights=WEIGHTS,
    manifest="7974a0da731549968ce90dca96f2be9d151590f281cd4da641f5bb607ff2e883",
    settings=SETTINGS,
    max_rank=3,
    server_rank=4,
    rounds=10,
    round=2,
    version=2,
    history=DIGEST,
    values=((4.0, 2.5, 0.0), (1.0, 0.5, 0.25)),
)
SPEC = m.RoundSpec(round=3, version=2, seed=8_675_309, sketch=True, trains="both")
PART = m.AdapterPart(name="w", frozen_b=EMPTY, frozen_a=EMPTY, basis=FP32)
START = m.AdapterPart(name="v", frozen_b=EMPTY, frozen_a=EMPTY, basis=FP32, start_b=BF16)
UPDATE_PART = m.UpdatePart(name="w", b=BF16, sketch=INT4)
A_PART = m.UpdatePart(name="v", b=EMPTY, a=INT8)
MIXED = m.FactorPatch(new=BF16, mix=FP32)
CHANGED = m.WeightPatch(name="w", frozen_b=MIXED, frozen_a=m.FactorPatch(new=FP32), basis=FP32, start_b=BF16)
MESSAGES: dict[str, Message] = {
    "Tensor-fp32": FP32,
    "Tensor-bf16": BF16,
    "Tensor-int8": INT8,
    "Tensor-int4": INT4,
    "Tensor-empty": EMPTY,
    "Weight": WEIGHTS[0],
    "Personal": PERSONAL,
    "TrainSettings": SETTINGS,
    "TrainSettings-personal": msgspec.structs.replace(SETTINGS, personal=PERSONAL),
    "Keep": KEEP,
    "TrainSettings-cooldown": msgspec.structs.replace(SETTINGS, cooldown=0.5),
    "TrainSettings-nested": msgspec.structs.replace(SETTINGS, nested=3),
    "TrainSettings-keep": msgspec.structs.replace(SETTINGS, keep=KEEP),
    "Base": RUN.base,
    "RunInfo": RUN,
    "Enrol": m.Enrol(protocol=1, token="t0ken", install_id=DIGEST[:32], name="Ada's Pi – büro", client_version="0.1.0"),
    "Enrolled": m.Enrolled(device="d-7", credential="s3cret", run=RUN),
    "Prove": m.Prove(protocol=1, device="d-7", nonce=DIGEST),
    "Proof": m.Proof(proof=DIGEST, certificate=DIGEST[::-1]),
    "Proof-plain": m.Proof(proof=DIGEST),
    "Renew": m.Renew(credential=DIGEST),
    "Version": m.Version(version=7, digest=DIGEST),
    "History": m.History(versions=(m.Version(version=7, digest=DIGEST), m.Version(version=8, digest=DIGEST))),
    "BaseFile": m.BaseFile(name="config.json", size_bytes=1_404),
    "BaseFiles": m.BaseFiles(files=(m.BaseFile(name="model-00001-of-00002.safetensors", size_bytes=9),)),
    "NamedTensor": m.NamedTensor(name="w", tensor=INT8),
    "Profile": m.Profile(
        protocol=1,
        run_id="run-1",
        manifest=DIGEST,
        n_examples=17,
        sketches=(m.NamedTensor(name="w", tensor=FP32), m.NamedTensor(name="v", tensor=BF16)),
        scores=(0.75, 0.0),
    ),
    "RoundSpec": SPEC,
    "Task": m.Task(
        kind="train",
        run_id="run-1",
        spec=SPEC,
        staleness_limit=10,
        time_left_s=59.5,
        retry_after_s=0.25,
        renew=True,
        notice="another client uses a copy of this board's identity",
    ),
    "Task-wait": m.Task(kind="wait", run_id="run-1", spec=m.RoundSpec(round=0, version=0)),
    "AdapterPart": PART,
    "AdapterPart-start": START,
    "Adapter": m.Adapter(protocol=1, run_id="run-1", version=2, manifest=DIGEST, parts=(PART, START)),
    "FactorPatch": MIXED,
    "WeightPatch": CHANGED,
    "WeightPatch-nothing": m.WeightPatch(name="w"),
    "AdapterPatch": m.AdapterPatch(since=1, protocol=1, run_id="run-1", version=2, manifest=DIGEST, parts=(CHANGED,)),
    "UpdatePart": UPDATE_PART,
    "UpdatePart-a": A_PART,
    "Update": m.Update(
        protocol=1,
        run_id="run-1",
        round=3,
        version=2,
        manifest=DIGEST,
        n_examples=1_000_000,
        parts=(UPDATE_PART, A_PART, m.UpdatePart(name="u", b=INT8)),
    ),
    "Receipt": m.Receipt(accepted=False, reason="norm is 40 times the cohort's median"),
    "Report": m.Report(
        kind="evaluation", round=3, version=2, text="…", values={"loss": 1.5, "rougeL": 0.25, "n": -3.0}
    ),
    "RewardLearning": REWARD,
    "Refusal": m.Refusal(code="gone", message="round 3 is closed", hint="ask for work again"),
}


def write_golden(folder: Path) -> None:
    """Write the files that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, message in MESSAGES.items():
        path = folder / f"{name}.msgpack"
        if not path.exists():
            path.write_bytes(encode(message))


@pytest.mark.parametrize("name", MESSAGES)
def test_bytes_of_version_1_are_frozen(name: str, golden: dict[str, tuple[type[Message], bytes]]) -> None:
    """Every committed file decodes to the value written here, and that value encodes to the same bytes."""
    kind, data = golden[name]

    assert decode(data, kind) == MESSAGES[name]
    assert encode(MESSAGES[name]) == data


def test_every_message_type_is_frozen(golden: dict[str, tuple[type[Message], bytes]]) -> None:
    """No message type can be added without its golden bytes, and no file lies about without an expected value."""
    kinds = {kind for kind, _ in golden.values()}

    defined = {k for k in (vars(r) | vars(m)).values() if isinstance(k, type) and issubclass(k, Message)}
    assert kinds == defined - {Message}
    assert set(golden) == set(MESSAGES)


def test_golden_bytes_are_plain_msgpack(golden: dict[str, tuple[type[Message], bytes]]) -> None:
    """The bytes spelt out for one message, so that the frozen files cannot be wrong all together."""
    expected = b"\x82" + b"\xa8accepted\xc2" + b"\xa6reason\xd9\x24norm is 40 times the cohort's median"

    assert golden["Receipt"][1] == expected


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (FP32, [[1, -2]]),
        (BF16, [[1], [-2]]),
        (INT8, [[63.5, 0, -63.5]]),
        (INT4, [[14], [-14], [2]]),
        (EMPTY, np.zeros((3, 0))),
    ],
)
def test_values_of_frozen_tensors(tensor: m.Tensor, values: list[list[float]]) -> None:
    """What the frozen blocks mean, in numbers worked out by hand."""
    assert np.array_equal(unpack(tensor), np.array(values))


def test_content_type_is_frozen() -> None:
    """The header that every version-1 peer sends."""
    assert CONTENT_TYPE == "application/vnd.braid+msgpack; v=1"


def test_seeds_are_frozen() -> None:
    """Round seeds must be the same on every machine and in every later release."""
    assert [derive_seed(0), derive_seed(1, "order", 3, "device-7"), derive_seed(2**53, 0, 0)] == SEEDS


def test_projection_is_frozen() -> None:
    """Signs of Ω, row by row, for one small case and by digest for one that spans many bytes."""
    omega = projection(7, "decoder.block.0.layer.0.SelfAttention.q", 3, 5)

    assert ["".join("-+"[int(x > 0)] for x in row) for row in omega] == SIGNS
    assert np.array_equal(np.abs(omega), np.full((3, 5), np.float32(1) / np.sqrt(np.float32(3))))
    large = np.sign(projection(2**53, "w", 64, 1023)).astype(np.int8)
    assert hashlib.sha256(large.tobytes()).hexdigest() == LARGE_SIGNS_DIGEST


def test_manifest_is_frozen() -> None:
    """Names, order and digest of a small T5's weights, both scopes."""
    base = T5Config(vocab_size=50, d_model=64, d_kv=16, d_ff=80, n_heads=3, n_encoder_blocks=2, n_decoder_blocks=1)
    decoder, everything = t5_weights(base, "decoder"), t5_weights(base, "all")

    assert [(w.name, w.rows, w.columns) for w in decoder] == DECODER_MANIFEST
    assert (len(everything), everything[-len(decoder) :]) == (25, decoder)
    assert [manifest_digest(decoder), manifest_digest(everything)] == MANIFEST_DIGESTS


SEEDS = [1985688470609277, 2628777266096624, 4850612172506909]
SIGNS = ["++-+-", "-++--", "-++++"]
LARGE_SIGNS_DIGEST = "5129a0e76511d562fb67240380a83436051f2ab26ba0618ab060ebdbf9ea03bb"
_DECODER = "decoder.block.0.layer"
DECODER_MANIFEST = [
    *[(f"{_DECODER}.0.SelfAttention.{part}", 48, 64) for part in "qkv"],
    (f"{_DECODER}.0.SelfAttention.o", 64, 48),
    *[(f"{_DECODER}.1.EncDecAttention.{part}", 48, 64) for part in "qkv"],
    (f"{_DECODER}.1.EncDecAttention.o", 64, 48),
    *[(f"{_DECODER}.2.DenseReluDense.{part}", 80, 64) for part in ("wi_0", "wi_1")],
    (f"{_DECODER}.2.DenseReluDense.wo", 64, 80),
]
MANIFEST_DIGESTS = [
    "7c9262a3c59a3ecb8a30bf82e165b9bbd9b1bcfb3bc5bc838fd7315669af4e26",
    "b43e146cb1ce0fd7d7a040b5bddb66e371b903be465a36b017277fa10176f10a",
]

if __name__ == "__main__":
    write_golden(Path(__file__).parent / "golden" / "v1")
