"""NaN and infinity are found in every float type, wherever they lie; the largest and smallest numbers are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from aggregator.settings import finite_weights
from aggregator.settings.finite_weights import require_finite
from braid_common.base.files import BaseFilesError
from braid_common.base.safetensors_header import StoredTensor, read_header


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of ten values is read in three parts."""
    monkeypatch.setattr(finite_weights, "CHUNK_VALUES", 4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [0, 4, 9])
def test_one_value_is_enough(dtype: Any, place: int, tmp_path: Path) -> None:
    """The tensor is named; extreme numbers beside it are no reason."""
    path = tmp_path / "model.safetensors"
    limits = np.finfo(dtype)
    values = np.array([limits.max, limits.min, limits.tiny, 0, -0.0, 1, -1, limits.eps, 2, 3], dtype)
    save_file({"fine": values}, path)
    require_finite(read_header(path))

    for odd in (np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[place] = odd
        save_file({"fine": values, "broken": broken}, path)
        with pytest.raises(BaseFilesError, match="broken holds NaN or infinity"):
            require_finite(read_header(path))


@pytest.mark.parametrize(("bits", "is_finite"), [(0x7F7F, True), (0xFF7F, True), (0x7F80, False), (0xFFC1, False)])
def test_bf16_by_its_bits(bits: int, is_finite: bool, tmp_path: Path) -> None:
    """numpy has no bf16: its largest numbers, infinity and a NaN are written as bits."""
    path = tmp_path / "data"
    path.write_bytes(np.array([0, 0x3F80, bits, 1, 2], "<u2").tobytes())
    tensor = StoredTensor("half", path, "BF16", (5,), 0)

    if is_finite:
        require_finite([tensor])
    else:
        with pytest.raises(BaseFilesError, match="half holds NaN"):
            require_finite([tensor])


def test_codes_are_no_floats(tmp_path: Path) -> None:
    """Every byte is a number in int8."""
    path = tmp_path / "model.safetensors"
    save_file({"codes": np.full(64, -1, np.int8)}, path)

    require_finite(read_header(path))
