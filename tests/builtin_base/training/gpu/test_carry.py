"""The sample that is carried to a GPU has the mixture's shares, and comes out as it went in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import builtin_base
from builtin_base.training.batches import Sources
from builtin_base.training.gpu import carry
from builtin_base.training.text import rows
from tests.fakes.base_training import write_run_folder


@pytest.mark.parametrize(
    ("total", "parts"),
    [
        (10.0, {"a": 5.0, "b": 2.5, "c": 2.5}),
        (40.0, {"a": 24.0, "b": 4.0, "c": 12.0}),  # b is full, a and c share what it leaves
        (100.0, {"a": 30.0, "b": 4.0, "c": 30.0}),  # all are full
    ],
)
def test_nobody_gets_more_than_it_has(total: float, parts: dict[str, float]) -> None:
    """Weights decide, until a kind gives all it has."""
    found = carry.allot(total, {"a": 2.0, "b": 1.0, "c": 1.0, "none": 0.0}, {"a": 30, "b": 4, "c": 30, "none": 9})

    assert found == pytest.approx(parts)


def test_a_sample_keeps_order_and_size() -> None:
    """Streams from their start, every n-th pair, so that pairs still lie by length."""
    stream = np.arange(3, 7_003).astype(np.uint16)
    pairs = rows.sort([([5] * n, [6, n + 10]) for n in range(1, 101)])
    side = rows.Text({"docstring": stream, "page": stream}, {("summary", "docstring"): pairs})

    found = carry.sample(side, 3_000)

    assert carry.n_tokens(found) == pytest.approx(3_000, rel=0.05)
    assert sum(map(len, found.streams.values())) == pytest.approx(2_000, rel=0.01)
    assert len(found.streams["docstring"]) == pytest.approx(len(found.streams["page"]) * 0.38 / 0.14, rel=0.01)
    assert np.array_equal(found.streams["page"], stream[: len(found.streams["page"])])
    lengths = found.pairs["summary", "docstring"].sources.lengths
    assert np.all(np.diff(lengths) >= 0) and lengths[-1] > 90


def test_compressed_text_comes_back_smaller(sources: Sources) -> None:
    """Every id, every row."""
    data = carry.compress(sources.text)
    back = carry.decompress(data)

    for name, array in rows.arrays_of(sources.text).items():
        np.testing.assert_array_equal(rows.arrays_of(back)[name], array)
    assert len(data) < carry.n_tokens(sources.text)


def test_packing_keeps_to_its_bytes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """What is carried fits, and makes a run's folder again; no room for text is said."""
    run, out = tmp_path / "run", tmp_path / "out"
    write_run_folder(run, tokenizer)
    packed = run / "export" / "packed"
    packed.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (packed / name).write_bytes((builtin_base.folder() / name).read_bytes())

    report = carry.pack_for_gpu(run, out, 1 << 20)
    carry.unpack(out, tmp_path / "again")

    assert report["bytes"] <= 1 << 20
    assert {path.name for path in (tmp_path / "again" / "text").iterdir()} == {
        path.name for path in (run / "text").iterdir()
    }
    assert report["tokens"] == carry.n_tokens(rows.read(tmp_path / "again" / "text" / "train.safetensors"))
    with pytest.raises(ValueError, match="no room"):
        carry.pack_for_gpu(run, out, 1_000)
