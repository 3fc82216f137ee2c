"""Loading a base: strict about every tensor, one error type for every kind of damage, and frugal with memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import is_matrix, tensor_shapes
from quantize.base import FORMATS, load_base
from quantize.errors import BaseFormatError
from quantize.int8 import to_int8

BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"


@pytest.mark.parametrize("format", FORMATS)
def test_every_tensor_arrives_once_under_its_name(format: str, config: Any, tensors: Any, make_base: Any) -> None:
    """Matrices by module name, norms and position tables in fp32 by full name, nothing else."""
    base = load_base(make_base(config, tensors), format)

    assert {f"{name}.weight" for name in base.weights} == {name for name in tensors if is_matrix(name)}
    assert set(base.plain) == {name for name in tensors if not is_matrix(name)}
    assert torch.equal(base.plain[BIAS], tensors[BIAS])
    for name, weight in base.weights.items():
        expected = tensors[f"{name}.weight"]
        error = (weight.dense(torch.float32) - expected).norm() / expected.norm()
        assert weight.shape == tuple(expected.shape)
        assert error <= {"fp32": 0, "bf16": 0.003, "int8": 0.01, "nf4": 0.12}[format]


def test_fp32_is_exact_and_formats_shrink(config: Any, tensors: Any, make_base: Any) -> None:
    """Each format takes less memory than the one before it."""
    folder = make_base(config, tensors)

    sizes = [load_base(folder, format).resident_bytes for format in FORMATS]

    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sum(tensor.nbytes for tensor in tensors.values())


def test_only_what_is_wanted_is_kept(config: Any, tensors: Any, make_base: Any) -> None:
    """`wanted` sees the names of the result and decides one by one."""
    base = load_base(make_base(config, tensors), "bf16", wanted=lambda name: name.startswith("decoder."))

    assert base.weights
    assert all(name.startswith("decoder.") for name in (*base.weights, *base.plain))


def test_bf16_and_half_checkpoints_load(config: Any, tensors: Any, make_base: Any) -> None:
    """A checkpoint in another float dtype is widened exactly."""
    half = {name: tensor.bfloat16() for name, tensor in tensors.items()}

    base = load_base(make_base(config, half), "fp32")

    assert torch.equal(base.weights["shared"].dense(torch.float32), half["shared.weight"].float())


def test_shards_load_like_one_file(config: Any, tensors: Any, make_base: Any) -> None:
    """`model.safetensors.index.json` with two shards gives the same base."""
    folder = make_base(config, tensors)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a-1.safetensors": names[:9], "a-2.safetensors": names[9:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    base = load_base(folder, "fp32")

    assert torch.equal(base.weights["lm_head"].dense(torch.float32), tensors["lm_head.weight"])


def test_a_missing_head_is_the_embedding(config: Any, tensors: Any, make_base: Any) -> None:
    """Tied word embeddings: one matrix, counted once."""
    config["tie_word_embeddings"] = True
    del tensors["lm_head.weight"]

    base = load_base(make_base(config, tensors), "fp32")

    assert base.weights["lm_head"] is base.weights["shared"]
    assert base.resident_bytes == sum(tensor.nbytes for tensor in tensors.values())


def test_a_head_in_the_file_wins_over_the_config(config: Any, tensors: Any, make_base: Any) -> None:
    """Regression: transformers 5 writes tie_word_embeddings true for every T5; a stored head was dropped silently."""
    config["tie_word_embeddings"] = True

    base = load_base(make_base(config, tensors), "fp32")

    assert torch.equal(base.weights["lm_head"].dense(torch.float32), tensors["lm_head.weight"])


def test_duplicates_of_the_embedding_are_accepted(config: Any, tensors: Any, make_base: Any) -> None:
    """Old checkpoints repeat `shared` for each side."""
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()

    base = load_base(make_base(config, tensors), "int8")

    assert "encoder.embed_tokens" not in base.weights


def int8_rows(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same base as stored by `quantize convert --format int8`."""
    stored = {name: tensor for name, tensor in tensors.items() if not is_matrix(name)}
    for name in set(tensors) - set(stored):
        packed = to_int8(tensors[name])
        stored |= {name: packed.codes, f"{name}.row_scale": packed.scales}
    return config | {"braid_storage": "int8-rows"}, stored


def test_int8_rows_load_without_loss(config: Any, tensors: Any, make_base: Any) -> None:
    """Stored int8 loads into int8 bit by bit, and into fp32 as the same values."""
    folder = make_base(*int8_rows(config, tensors))

    codes = load_base(folder, "int8").weights["decoder.block.1.layer.2.DenseReluDense.wo"]
    dense = load_base(folder, "fp32").weights["decoder.block.1.layer.2.DenseReluDense.wo"]

    expected = to_int8(tensors["decoder.block.1.layer.2.DenseReluDense.wo.weight"])
    assert torch.equal(codes.codes, expected.codes)  # type: ignore[attr-defined]
    assert torch.equal(codes.scales, expected.scales)  # type: ignore[attr-defined]
    assert torch.equal(dense.dense(torch.float32), expected.dense(torch.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("encoder.final_layer_norm.weight"), "lacks tensor encoder.final_layer_norm.weight"),
        (lambda t: t.update(surprise=torch.ones(1)), "unknown tensor surprise"),
        (lambda t: t.update({"shared.weight": torch.ones(3, 64)}), r"shared.weight has shape \[3, 64\]"),
        (lambda t: t["shared.weight"].fill_(float("nan")), "shared.weight holds NaN"),
        (lambda t: t[BIAS].fill_(float("inf")), "relative_attention_bias.weight holds NaN or infinity"),
        (lambda t: t.update({"shared.weight": torch.ones(120, 64, dtype=torch.int8)}), "stored as I8"),
    ],
)
def test_a_wrong_tensor_is_named(change: Any, words: str, config: Any, tensors: Any, make_base: Any) -> None:
    """Missing, extra, misshapen, not finite, not a float: each is an error that names the tensor."""
    change(tensors)

    with pytest.raises(BaseFormatError, match=words):
        load_base(make_base(config, tensors), "int8")


def test_a_missing_row_scale_is_named(config: Any, tensors: Any, make_base: Any) -> None:
    """int8 codes without their scales are no weight."""
    config, stored = int8_rows(config, tensors)
    del stored["lm_head.weight.row_scale"]

    with pytest.raises(BaseFormatError, match=r"lacks tensor lm_head\.weight\.row_scale"):
        load_base(make_base(config, stored), "int8")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "bert"},
        {"d_model": None},
        {"d_model": "64"},
        {"num_layers": 10**9},
        {"d_ff": -1},
        {"feed_forward_proj": "relu"},
        {"braid_storage": "int3"},
    ],
)
def test_another_models_config_is_refused(changes: Any, config: Any, tensors: Any, make_base: Any) -> None:
    """A config.json that is not a gated T5's, or claims absurd sizes, is one sentence, at once."""
    with pytest.raises(BaseFormatError):
        load_base(make_base(config | changes, tensors), "fp32")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    """The sentence lists the formats."""
    with pytest.raises(BaseFormatError, match="fp32, bf16, int8, nf4"):
        load_base(tmp_path, "int3")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"t5"', "\xff", "[" * 100_000])
def test_a_broken_config_is_refused(text: str, config: Any, tensors: Any, make_base: Any) -> None:
    """Whatever bytes config.json holds, the error is ours."""
    folder = make_base(config, tensors)
    (folder / "config.json").write_text(text, encoding="latin-1")

    with pytest.raises(BaseFormatError):
        load_base(folder, "fp32")


@pytest.mark.parametrize(
    "index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {"a": 1}}', "{"]
)
def test_a_broken_index_is_refused(index: str, config: Any, tensors: Any, make_base: Any) -> None:
    """A shard list that is damaged, or points out of the folder, is refused."""
    folder = make_base(config, tensors)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)

    with pytest.raises(BaseFormatError):
        load_base(folder, "fp32")


def test_a_folder_without_weights_is_refused(tmp_path: Path, config: Any) -> None:
    """A pickled model is never read."""
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")

    with pytest.raises(BaseFormatError, match="never read"):
        load_base(tmp_path, "fp32")


@given(share=st.floats(0, 0.9999))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_file_is_one_kind_of_error(share: float, tmp_path_factory: Any) -> None:
    """Cut at any length, header or data: BaseFormatError and nothing else."""
    folder, data = _written(tmp_path_factory)
    (folder / "model.safetensors").write_bytes(data[: int(share * len(data))])

    with pytest.raises(BaseFormatError):
        load_base(folder, "int8")


@given(place=st.integers(0, 2000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_a_flipped_header_bit_never_escapes_as_another_error(place: int, bit: int, tmp_path_factory: Any) -> None:
    """Damage in the header is a BaseFormatError, or harmless."""
    folder, data = _written(tmp_path_factory)
    damaged = bytearray(data)
    damaged[place] ^= 1 << bit
    (folder / "model.safetensors").write_bytes(damaged)

    try:
        load_base(folder, "int8")
    except BaseFormatError as error:
        assert str(error)


_cache: dict[str, tuple[Path, bytes]] = {}


def _written(tmp_path_factory: Any) -> tuple[Path, bytes]:
    """One base folder for all examples of a property test, and its intact bytes."""
    if "base" not in _cache:
        folder = tmp_path_factory.mktemp("damaged")
        config = {"model_type": "t5", "feed_forward_proj": "gated-gelu", "vocab_size": 20, "d_model": 8}
        config |= {"num_heads": 3, "d_kv": 2, "d_ff": 10, "num_layers": 1, "tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {name: torch.ones(shape) for name, shape in tensor_shapes(T5Config.parse(config)).items()}
        save_file(tensors, folder / "model.safetensors")
        _cache["base"] = folder, (folder / "model.safetensors").read_bytes()
    return _cache["base"]


PEAK_SCRIPT = """
import sys
from pathlib import Path
def status(field):
    return next(int(l.split()[1]) << 10 for l in open("/proc/self/status") if l.startswith(field + ":"))
import torch
torch.set_num_threads(1)
from braid_common.base.t5_config import T5Config
from quantize.base import load_base
load_base(Path(sys.argv[2]), sys.argv[3])  # a tiny base first: what the code itself takes is not what is measured
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
base = load_base(Path(sys.argv[1]), sys.argv[3])
print(status("VmHWM") - before, base.resident_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("format", FORMATS)
def test_loading_never_holds_a_full_precision_copy(format: str, config: Any, tensors: Any, make_base: Any) -> None:
    """Peak while loading 60 MB stays within the result plus the largest tensor, plus 10 %."""
    big = config | {"vocab_size": 10_000, "d_model": 320, "d_ff": 1000, "num_layers": 4, "num_decoder_layers": 4}
    stored = {name: torch.full(shape, 0.5) for name, shape in tensor_shapes(T5Config.parse(big)).items()}
    folder, tiny = make_base(big, stored), make_base(config, tensors, "tiny")

    done = subprocess.run(
        [sys.executable, "-c", PEAK_SCRIPT, str(folder), str(tiny), format],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )

    grown, resident = (int(number) for number in done.stdout.split())
    total, largest = (f(tensor.nbytes for tensor in stored.values()) for f in (sum, max))
    assert total > 58e6
    print(f"{format}: grew {grown / 2**20:.1f} MiB, base {resident / 2**20:.1f} MiB")
    assert grown <= 1.1 * (resident + largest)
