"""Weights in 8 bits come back, and the shipped ones are whole and small."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import builtin_base

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors import safe_open  # noqa: E402

from builtin_base.training import architecture, export, model_folder, packing, scores  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import


def test_packing_keeps_each_value_within_half_a_step() -> None:
    """Int8 by rows: error at most half the row's scale; zero rows and vectors come back exactly."""
    rng = np.random.default_rng(2)
    matrix = torch.from_numpy(rng.normal(size=(7, 33)).astype(np.float32))
    matrix[3] = 0.0
    weights = {"a.weight": matrix, "norm.weight": torch.ones(5), "encoder.embed_tokens.weight": matrix}

    packed = packing.pack_weights(weights)
    restored = packing.unpack_weights(packed)

    assert set(packed) == {"a.weight", "a.weight.row_scale", "norm.weight"}
    assert packed["a.weight"].dtype == torch.int8
    step = matrix.abs().amax(1) / 127.0
    assert bool(((restored["a.weight"] - matrix).abs() <= step[:, None] / 2 + 1e-7).all())
    assert float(packed["a.weight.row_scale"][3]) == 1.0
    torch.testing.assert_close(restored["norm.weight"], torch.ones(5))
    with pytest.raises(ValueError, match="not finite"):
        packing.pack_weights({"bad": torch.tensor([[math.nan]])})


def test_the_model_folder_is_whole_and_small() -> None:
    """Every tensor of the configured T5 is there in the stored format, nothing else, in at most 12 MB."""
    folder = builtin_base.folder()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    expected = architecture.build(architecture.config(), seed=0).state_dict()
    repeated = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}

    with safe_open(folder / "model.safetensors", framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- not a mapping
        assert file.metadata()["format"] == packing.FORMAT

    assert export.folder_bytes(folder) <= export.MAX_FOLDER_BYTES
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    assert {name for name in stored if not name.endswith(".row_scale")} == set(expected) - repeated
    for name in set(expected) - repeated:
        assert stored[name].shape == expected[name].shape
        assert stored[name].dtype == (torch.int8 if expected[name].ndim == 2 else torch.float32)
        if expected[name].ndim == 2:
            assert stored[f"{name}.row_scale"].shape == expected[name].shape[:1]
    assert config["braid_storage"] == packing.STORAGE
    assert config["tie_word_embeddings"] is False
    assert not torch.equal(stored["shared.weight"], stored["lm_head.weight"])


def test_the_packed_model_has_learnt() -> None:
    """Greedy text for a docstring is English words, not noise; the model card carries measured scores."""
    folder = builtin_base.folder()
    model, tokenizer = model_folder.load(folder)
    source = scores.encode_source(tokenizer, "count_lines(path)\nReads the file line by line and returns how many.")

    written = scores.write(model, tokenizer, [source], 48)

    assert written[0].strip()
    assert "Scores on held-out text" in (folder / "README.md").read_text(encoding="utf-8")
