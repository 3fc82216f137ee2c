"""A base stored in nf4: what loads is what the original would have given, and every damage is named."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantize import writer
from quantize.base import FORMATS, FrozenBase, load_base
from quantize.checkpoint import open_checkpoint
from quantize.errors import BaseFormatError
from quantize.int8 import Int8Weight
from quantize.nf4 import Nf4Weight
from quantize.writer import convert, written_bytes

WO = "decoder.block.1.layer.2.DenseReluDense.wo"


def assert_same(first: FrozenBase, second: FrozenBase) -> None:
    """Bit by bit."""
    assert first.weights.keys() == second.weights.keys()
    assert first.plain.keys() == second.plain.keys()
    for name, weight in first.weights.items():
        assert type(weight) is type(second.weights[name])
        assert torch.equal(weight.dense(torch.float32), second.weights[name].dense(torch.float32)), name
    for name, table in first.plain.items():
        assert torch.equal(table, second.plain[name]), name


@pytest.mark.parametrize("stored", ["fp32", "bf16", "int8"])
def test_stored_nf4_is_what_the_original_gives(
    stored: str, config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """Whatever it was made of, the folder loads in nf4 bit by bit as that original does, without it."""
    convert(make_base(config, tensors), stored, tmp_path / "original")
    convert(tmp_path / "original", "nf4", tmp_path / "nf4")

    base = load_base(tmp_path / "nf4", "nf4")

    assert_same(base, load_base(tmp_path / "original", "nf4"))
    assert open_checkpoint(tmp_path / "nf4").stored_format == "nf4"
    assert json.loads((tmp_path / "nf4" / "config.json").read_text())["braid_storage"] == "nf4-blocks"


@pytest.mark.parametrize("format", FORMATS)
def test_other_formats_come_from_nf4s_values(
    format: str, config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """nf4 → any format gives the nf4 values in that format, not those of the original."""
    convert(make_base(config, tensors), "nf4", tmp_path / "nf4")
    convert(tmp_path / "nf4", "fp32", tmp_path / "fp32")

    assert_same(load_base(tmp_path / "nf4", format), load_base(tmp_path / "fp32", format))


def test_odd_sizes_survive(config: Any, make_base: Any, random_base: Any, tmp_path: Path) -> None:
    """Matrices whose values fill neither a byte nor a block: a code and an absmax more, and no value lost."""
    odd = config | {"d_model": 7, "num_heads": 1, "d_kv": 5, "d_ff": 9, "vocab_size": 11}
    folder = make_base(odd, random_base(odd))
    convert(folder, "nf4", tmp_path / "nf4")

    assert_same(load_base(tmp_path / "nf4", "nf4"), load_base(folder, "nf4"))


def test_wo_may_be_in_codes_and_is_multiplied_unpacked(config: Any, tensors: Any, make_base: Any) -> None:
    """The formats are weight-only: `wo` is held in 8 or 4 bits like the other layers, and handed out in floats, so
    activations are never rounded."""
    folder = make_base(config, tensors)

    for format, kind in (("int8", Int8Weight), ("nf4", Nf4Weight)):
        weight = load_base(folder, format).weights[WO]
        assert isinstance(weight, kind)
        assert {weight.dense(dtype).dtype for dtype in (torch.float32, torch.bfloat16)} == {
            torch.float32,
            torch.bfloat16,
        }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tied", [False, True])
def test_the_size_on_disk_is_known_before(
    format: str, tied: bool, config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """`written_bytes` is the size of the file to the byte, header and scales included."""
    if tied:
        config["tie_word_embeddings"] = True
        del tensors["lm_head.weight"]
    folder = make_base(config, tensors)

    expected = written_bytes(open_checkpoint(folder), format)

    convert(folder, format, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(f"{WO}.weight.absmax"), rf"lacks tensor {WO}\.weight\.absmax"),
        (lambda t: t.update({f"{WO}.weight.absmax": torch.ones(3)}), rf"{WO}\.weight\.absmax has shape \[3\]"),
        (lambda t: t[f"{WO}.weight.absmax"].fill_(float("nan")), rf"{WO}\.weight\.absmax holds NaN"),
        (lambda t: t.update({f"{WO}.weight.absmax": torch.ones(80).half()}), "stored as F16, F32 is needed"),
        (lambda t: t.update({f"{WO}.weight": t[f"{WO}.weight"][:-1]}), rf"{WO}\.weight has shape \[2559\]"),
        (lambda t: t.update({"surprise.absmax": torch.ones(1)}), r"unknown tensor surprise\.absmax"),
        (lambda t: t.pop("shared.weight.row_scale"), r"lacks tensor shared\.weight\.row_scale"),
        (lambda t: t["shared.weight.row_scale"].fill_(float("inf")), "row_scale holds NaN or infinity"),
        (lambda t: t.update({"decoder.final_layer_norm.weight": torch.ones(64, dtype=torch.uint8)}), "stored as U8"),
    ],
)
def test_a_wrong_part_is_named(
    change: Any, words: str, config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """Codes, absmax and row scales are checked strictly: presence, shape, dtype, and no NaN."""
    folder = tmp_path / "nf4"
    convert(make_base(config, tensors), "nf4", folder)
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")

    with pytest.raises(BaseFormatError, match=words):
        load_base(folder, "nf4")


@pytest.mark.parametrize("storage", [None, "int8-rows"])
def test_codes_need_the_config_to_say_so(
    storage: str | None, config: Any, tensors: Any, make_base: Any, tmp_path: Path
) -> None:
    """uint8 under a config.json that names no nf4 is an error: its numbers must not be taken for values."""
    folder = tmp_path / "nf4"
    convert(make_base(config, tensors), "nf4", folder)
    (folder / "config.json").write_text(json.dumps(config | ({"braid_storage": storage} if storage else {})))

    with pytest.raises(BaseFormatError):
        load_base(folder, "nf4")


@pytest.mark.parametrize("storage", ["int3", 4, ["nf4-blocks"], {}, True])
def test_an_unknown_storage_is_refused(storage: Any, config: Any, tensors: Any, make_base: Any) -> None:
    """Whatever JSON stands there: one sentence."""
    with pytest.raises(BaseFormatError, match="does not know"):
        load_base(make_base(config | {"braid_storage": storage}, tensors), "fp32")


@given(place=st.integers(0, 6000), bit=st.integers(0, 7))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_in_an_nf4_header_is_one_kind_of_error(
    place: int, bit: int, config: Any, tensors: Any, make_base: Any, tmp_path_factory: Any
) -> None:
    """The file still loads or BaseFormatError says why not; nothing else is raised."""
    folder, data = _stored(config, tensors, make_base, tmp_path_factory)
    damaged = bytearray(data)
    damaged[place % len(damaged)] ^= 1 << bit
    (folder / "model.safetensors").write_bytes(bytes(damaged))

    try:
        load_base(folder, "int8")
    except BaseFormatError:
        return


_made: dict[str, tuple[Path, bytes]] = {}


def _stored(config: Any, tensors: Any, make_base: Any, tmp_path_factory: Any) -> tuple[Path, bytes]:
    """One nf4 base for all examples of a test, and its undamaged bytes."""
    if not _made:
        folder = tmp_path_factory.mktemp("stored") / "nf4"
        convert(make_base(config, tensors), "nf4", folder)
        _made["nf4"] = folder, (folder / "model.safetensors").read_bytes()
    return _made["nf4"]


def test_a_disk_that_fills_up_leaves_nothing(
    config: Any, tensors: Any, make_base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC when the tensors are to reach the disk: a sentence, no folder, no partial folder."""
    folder = make_base(config, tensors)
    calls = []

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer.os, "fsync", full)

    with pytest.raises(BaseFormatError, match="No space left on device"):
        convert(folder, "nf4", tmp_path / "out")
    assert calls
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_progress_ends_at_the_whole(config: Any, tensors: Any, make_base: Any, tmp_path: Path) -> None:
    """`tell` hears growing byte counts, of which the last is all that is written after the header."""
    told: list[tuple[int, int]] = []

    convert(make_base(config, tensors), "nf4", tmp_path / "out", tell=lambda *counts: told.append(counts))

    done = [written for written, _ in told]
    assert done == sorted(done)
    assert told[-1][0] == told[-1][1] == sum(t.nbytes for t in load_file(tmp_path / "out/model.safetensors").values())
