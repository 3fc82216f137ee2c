"""The encoder run block by block from disk gives what the whole model gives, with one block in memory."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.encoder_cache import encoder_pass
from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec, encode_sources
from edge_client.engines.lean.encoder_cache.store import EncoderCache, Origin
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import collate, source_batch
from edge_client.engines.lean.model.lora import Linear
from edge_client.engines.lean.model.model import DTYPES, Model
from edge_client.errors import BaseModelError
from edge_client.jobs.messages import Compute
from quantize.base import FORMATS, FrozenBase, load_base

pytestmark = pytest.mark.slow

D_MODEL, N_BLOCKS, PAD_ID = 32, 2, 0
Source = tuple[int, ...]
Store = Callable[[Source, Tensor], object]


def make_sources(lengths: list[int]) -> list[Source]:
    rng = random.Random(4)
    return [(*(rng.randrange(2, 96) for _ in range(n - 1)), 1) for n in lengths]


RAGGED = make_sources([5, 64, 33, 1, 32, 64, 40, 31, 5, 17, 64, *[50] * 20])
"""Padded and full widths, several of a length, one that is eos alone, and too many of a width for one batch."""


def encode(folder: Path, format: str, compute: Compute, sources: list[Source], **changes: Any) -> dict[Source, Tensor]:
    found: dict[Source, Tensor] = {}

    def store(ids: Source, hidden: Tensor) -> None:
        assert ids not in found
        found[ids] = hidden.clone()

    encode_sources(EncoderSpec(folder, format, DTYPES[compute]), sources, store, **changes)
    return found


def whole(model: Model, sources: list[Source]) -> list[Tensor]:
    """Model.encode of one batch as training makes it, without the padding."""
    ids, mask = source_batch(sources, PAD_ID)
    with torch.no_grad():
        hidden = model.encode(ids, None if mask.all() else mask)
    return [rows[real] for rows, real in zip(hidden, mask, strict=True)]


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("lengths", [[32], [21], [9, 30, 21], [64, 64]])
def test_a_batch_equals_the_model_to_the_bit(
    base_folder: Path, format: str, compute: Compute, lengths: list[int]
) -> None:
    """The same sources in one batch, alone or not, padded or not: the model's own bits, in every format."""
    model = Model(load_base(base_folder, format), AdapterTensors(), compute)
    sources = sorted(make_sources(lengths), key=lambda ids: (-len(ids), ids))

    ours = encode(base_folder, format, compute, sources)

    for ids, theirs in zip(sources, whole(model, sources), strict=True):
        assert ours[ids].dtype == DTYPES[compute] and torch.equal(ours[ids], theirs)


@pytest.mark.parametrize(("compute", "tolerance"), [("fp32", 1e-5), ("bf16", 2**-5)])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("hidden_bytes", [1, 70 * D_MODEL * 4, encoder_pass.HIDDEN_BYTES])
def test_ragged_sources_equal_the_model(
    base_folder: Path, format: str, compute: Compute, tolerance: float, hidden_bytes: int
) -> None:
    """However sources are divided into chunks and batches, each comes out once, as if it had been alone, to rounding
    (a few of bf16's steps of 2⁻⁸, relative to the largest value)."""
    model = Model(load_base(base_folder, format), AdapterTensors(), compute)

    ours = encode(base_folder, format, compute, RAGGED, hidden_bytes=hidden_bytes)

    assert set(ours) == set(RAGGED)
    for ids in RAGGED:
        (theirs,) = whole(model, [ids])
        assert ours[ids].shape == (len(ids), D_MODEL) and not ours[ids].requires_grad
        assert (ours[ids] - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_order_of_sources_changes_no_bit(base_folder: Path) -> None:
    """Batches are made from the sources alone, so that two boards, or two starts, get the same."""
    shuffled = random.Random(8).sample(RAGGED, len(RAGGED))

    first, second = (encode(base_folder, "int8", "bf16", order) for order in (RAGGED, shuffled))

    assert all(torch.equal(first[ids], second[ids]) for ids in RAGGED)


@pytest.mark.parametrize("format", FORMATS)
def test_one_block_in_memory(base_folder: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was loaded before is gone, packed and unpacked, when the next part is; no load asks for two blocks."""
    loads: list[set[str]] = []
    alive: list[weakref.ref[Tensor]] = []
    most_linears = 0

    def load(folder: Path, format: str, *, wanted: Callable[[str], bool]) -> FrozenBase:
        assert not any(tensor() is not None for tensor in alive), "the last part is still in memory"
        base = load_base(folder, format, wanted=wanted)
        loads.append({".".join(name.split(".")[:3]) for name in base.weights})
        tensors = [part for weight in base.weights.values() for part in vars(weight).values() if torch.is_tensor(part)]
        alive.extend(map(weakref.ref, tensors))
        return base

    def count_linears() -> None:
        nonlocal most_linears
        most_linears = max(most_linears, sum(type(thing) is Linear for thing in gc.get_objects()))

    monkeypatch.setattr(encoder_pass, "load_base", load)
    gc.collect()
    before = sum(type(thing) is Linear for thing in gc.get_objects())
    gc.disable()  # nothing may wait for the collector
    try:
        encode(base_folder, format, "fp32", RAGGED, check_stop=count_linears, hidden_bytes=200 * D_MODEL * 4)
    finally:
        gc.enable()

    n_chunks = 7
    assert loads == [set(), *([{"shared"}, {"encoder.block.0"}, {"encoder.block.1"}] * n_chunks)]
    assert most_linears - before == 7, "q, k, v, o, wi_0, wi_1 and wo"


@pytest.mark.parametrize("hidden_bytes", [1, 1 << 20])
def test_progress_is_even_and_complete(base_folder: Path, hidden_bytes: int) -> None:
    """Told after every batch of every block: sources never go down and reach all, tokens add up to all."""
    told: list[tuple[int, int]] = []

    encode(base_folder, "nf4", "fp32", RAGGED, tell=lambda *numbers: told.append(numbers), hidden_bytes=hidden_bytes)

    done = [n_done for n_done, _ in told]
    assert done == sorted(done) and done[-1] == len(RAGGED) and done[0] < len(RAGGED)
    assert len(told) >= N_BLOCKS * 3
    n_tokens = sum(map(len, RAGGED))
    assert sum(n for _, n in told) == n_tokens
    so_far = 0
    for n_done, n in told:
        so_far += n
        assert abs(n_done / len(RAGGED) - so_far / n_tokens) <= 1 / len(RAGGED) + 1 / n_tokens


class Stop(BaseException):
    pass


def test_stop_loses_one_chunk_at_most(base_folder: Path) -> None:
    """A stop comes through as it is, and what was stored before it is right."""
    found: dict[Source, Tensor] = {}

    def check_stop() -> None:
        if len(found) == 3:
            raise Stop

    with pytest.raises(Stop):
        encode_sources(
            EncoderSpec(base_folder, "fp32", torch.float32),
            RAGGED,
            lambda ids, hidden: found.update({ids: hidden.clone()}),
            check_stop=check_stop,
            hidden_bytes=1,
        )

    whole_pass = encode(base_folder, "fp32", "fp32", RAGGED, hidden_bytes=1)
    assert len(found) == 3 and all(torch.equal(hidden, whole_pass[ids]) for ids, hidden in found.items())


def test_nothing_to_encode_needs_no_base(tmp_path: Path) -> None:
    """Everything is in the cache: the base's folder is not even opened."""
    encode_sources(
        EncoderSpec(tmp_path / "absent", "fp32", torch.float32), [], lambda ids, hidden: pytest.fail("stored")
    )


@pytest.mark.parametrize("damage", ["missing", "cut", "nan"])
def test_damaged_base_is_told(base_folder: Path, tmp_path: Path, damage: str) -> None:
    """A base that is missing, cut short, or broken in its last block: BaseModelError with a hint."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((base_folder / name).read_bytes())
    whole_file, weights = base_folder / "model.safetensors", tmp_path / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(whole_file.read_bytes()[:-100])
    if damage == "nan":
        state = load_file(whole_file)
        state[f"encoder.block.{N_BLOCKS - 1}.layer.1.DenseReluDense.wo.weight"][3, 5] = torch.nan
        save_file(state, weights)

    with pytest.raises(BaseModelError) as caught:
        encode(tmp_path, "int8", "fp32", RAGGED)

    assert "fetch the base model again" in caught.value.hint and str(tmp_path) in caught.value.message


@pytest.mark.parametrize("stored", ["bf16", "int8"])
def test_cached_loss_is_the_uncached_one(base_folder: Path, tmp_path: Path, stored: Any) -> None:
    """Pass, disk, and decoder together: the loss of a ragged batch moves by the stored dtype's rounding alone."""
    model = Model(load_base(base_folder, "fp32"), AdapterTensors(), "fp32")
    sources = RAGGED[:4]
    pairs = [Pair(source, (7 + i, 9, 1)) for i, source in enumerate(sources)]
    cache = EncoderCache(tmp_path / "cache", Origin("d" * 64, "fp32", "fp32", stored), D_MODEL, 1 << 20)

    cache.keep(sources)
    encode_sources(EncoderSpec(base_folder, "fp32", torch.float32), cache.missing(sources), cache.put)
    batch = collate(pairs, PAD_ID, 0)
    encoded = torch.zeros(*batch.source.shape, D_MODEL)
    for row, source in zip(encoded, sources, strict=True):
        hidden = cache.get(source, torch.float32)
        assert hidden is not None
        row[: len(source)] = hidden

    assert cache.missing(sources) == []
    with torch.no_grad():
        torch.testing.assert_close(model.loss_sum(batch, encoded), model.loss_sum(batch), rtol=1e-2, atol=0)
