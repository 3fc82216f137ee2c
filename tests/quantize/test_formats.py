"""Each format's numbers: error bounds, exactness on its own grid, memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from braid_common.base.weights import BLOCK_VALUES
from quantize.base import pack
from quantize.formats import FORMATS
from quantize.int8 import to_int8
from quantize.nf4 import LEVELS, to_nf4
from quantize.weight import CHUNK_VALUES, FrozenWeight

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 90))
SEEDS = st.integers(0, 2**31)


def matrix(shape: tuple[int, int], seed: int) -> Tensor:
    """Normal values with rows of very different size, one of them zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) * torch.logspace(-6, 3, shape[0])[:, None]
    values[seed % shape[0]] = 0
    return values


@given(SHAPES, SEEDS)
@settings(max_examples=60, deadline=None)
def test_int8_error_is_half_a_step_of_its_row(shape: tuple[int, int], seed: int) -> None:
    """|w − ŵ| ≤ max|row| / 254, and a row of zeros stays zero."""
    values = matrix(shape, seed)

    error = (to_int8(values).dense(torch.float32) - values).abs()

    assert (error <= values.abs().amax(1, keepdim=True) / 254 * 1.0001).all()


@given(SHAPES, SEEDS)
@settings(max_examples=60, deadline=None)
def test_nf4_error_is_half_the_gap_between_levels(shape: tuple[int, int], seed: int) -> None:
    """|w − ŵ| ≤ 0.152 · absmax of the block, and never more than half the gap around the value."""
    values = matrix(shape, seed)

    error = (to_nf4(values).dense(torch.float32) - values).abs().view(-1)

    padded = torch.nn.functional.pad(values.view(-1), (0, -values.numel() % BLOCK_VALUES))
    absmax = padded.view(-1, BLOCK_VALUES).abs().amax(1).repeat_interleave(BLOCK_VALUES)[: values.numel()]
    assert (error <= 0.15193 * absmax).all()


@pytest.mark.parametrize("format", FORMATS)
@given(SHAPES, SEEDS)
@settings(max_examples=25, deadline=None)
def test_packing_what_was_unpacked_changes_nothing(format: str, shape: tuple[int, int], seed: int) -> None:
    """A value on a format's own grid is kept to rounding: packing is idempotent."""
    once = pack(matrix(shape, seed), "encoder", format).dense(torch.float32)

    twice = pack(once, "encoder", format).dense(torch.float32)

    torch.testing.assert_close(twice, once, rtol=3e-7, atol=0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(SHAPES, SEEDS)
@settings(max_examples=20, deadline=None)
def test_rows_are_those_of_the_dense_matrix(format: str, dtype: torch.dtype, shape: tuple[int, int], seed: int) -> None:
    """`rows_of` equals indexing `dense`, for ids of any shape and any odd number of columns."""
    weight = pack(matrix(shape, seed), "encoder", format)
    ids = torch.randint(0, shape[0], (2, 3), generator=torch.Generator().manual_seed(seed))

    rows = weight.rows_of(ids, dtype)

    assert rows.dtype == dtype
    torch.testing.assert_close(rows, weight.dense(dtype)[ids], rtol=0, atol=0)


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_that_is_not_there_is_an_error(format: str) -> None:
    """An id outside the vocabulary raises IndexError, it never reads another row."""
    weight = pack(torch.ones(5, 3), "encoder", format)

    with pytest.raises(IndexError):
        weight.rows_of(torch.tensor([5]), torch.float32)


@pytest.mark.parametrize("pack_one", [to_int8, to_nf4])
def test_more_values_than_a_chunk_are_packed_alike(pack_one: type[FrozenWeight]) -> None:
    """Chunking is invisible: a matrix larger than CHUNK_VALUES equals its halves packed alone."""
    columns = 192
    rows = 2 * (CHUNK_VALUES // columns) + 2
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))

    whole = pack_one(values).dense(torch.bfloat16)

    halves = [pack_one(half).dense(torch.bfloat16) for half in values.chunk(2)]
    assert torch.equal(whole, torch.cat(halves))


def test_dense_formats_lend_the_stored_tensor() -> None:
    """No copy is made where the dtype is the stored one: an fp32 base costs its size once."""
    weight = pack(torch.randn(4, 6), "encoder", "fp32")

    assert weight.dense(torch.float32).data_ptr() == weight.dense(torch.float32).data_ptr()


def test_bits_per_value_are_those_advertised() -> None:
    """32, 16, 8 and a row scale, 4.5."""
    values = torch.randn(128, 256)

    sizes = [pack(values, "encoder", format).resident_bytes for format in FORMATS]

    n = values.numel()
    assert sizes == [4 * n, 2 * n, n + 4 * 128, n // 2 + 4 * n // 64]


def test_embeddings_stay_in_int8_under_nf4() -> None:
    """`shared` and `lm_head` decide the logits; four bits would cost more than they save."""
    values = torch.randn(8, 64)

    assert torch.equal(pack(values, "lm_head", "nf4").dense(torch.float32), to_int8(values).dense(torch.float32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [(48, 64), (3, 10), (17, 130)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_gives_the_numbers_of_bitsandbytes(shape: tuple[int, int], dtype: torch.dtype) -> None:
    """Codes, scales and values equal bitsandbytes' own, whole blocks or not (odd widths it compiles, for seconds)."""
    functional = pytest.importorskip("bitsandbytes.functional")
    values = torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)

    ours = to_nf4(values)

    codes, state = functional.quantize_4bit(values, blocksize=BLOCK_VALUES, quant_type="nf4")
    assert torch.equal(ours.codes, codes.view(-1))
    torch.testing.assert_close(ours.absmax, state.absmax, rtol=0, atol=0)
    theirs = functional.dequantize_4bit(codes, state)
    torch.testing.assert_close(ours.dense(dtype), theirs, rtol=2e-7 if dtype == torch.float32 else 0, atol=0)


def test_levels_are_sorted_and_hold_zero_and_both_ends() -> None:
    """Zero and ±absmax are exact in nf4."""
    assert list(LEVELS) == sorted(LEVELS)
    assert (LEVELS[0], LEVELS[7], LEVELS[-1]) == (-1.0, 0.0, 1.0)
