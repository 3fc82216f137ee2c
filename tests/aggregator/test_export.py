"""Exported folders load with peft as they are, and reproduce the global adapter."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.errors import NothingToExportError
from aggregator.export import MARKER, Origin, export_peft
from aggregator.merge.low_rank.approximation import truncate
from aggregator.merge.state import AdapterState, WeightState, initial_state
from braid_common.base.t5_config import T5Config
from braid_common.lora_config import lora_config
from braid_common.text_form import TextForm
from wire.manifest import t5_weights
from wire.run import Weight

CONFIG = {
    "model_type": "t5",
    "d_model": 64,
    "d_kv": 16,
    "num_heads": 3,
    "d_ff": 80,
    "num_layers": 2,
    "num_decoder_layers": 13,
    "vocab_size": 32,
    "feed_forward_proj": "gated-gelu",
}
"""Not square, and more than eleven layers: `block.1` is the start of `block.11`."""


def adapter(weights: tuple[Weight, ...], ranks: Mapping[str, int]) -> AdapterState:
    """Random adapters of these ranks (0 where not named), as `truncate` leaves them."""
    rng = np.random.default_rng(0)
    states = dict(initial_state(weights).weights)
    for weight in weights:
        rank = ranks.get(weight.name, 0)
        b, a = rng.standard_normal((weight.rows, rank)), rng.standard_normal((rank, weight.columns))
        frozen_b, frozen_a = truncate(b, a, rank)
        states[weight.name] = WeightState(
            frozen_b=frozen_b,
            frozen_a=frozen_a,
            basis=np.zeros((0, weight.columns), np.float32),
            values=np.zeros(0),
        )
    return AdapterState(version=4, weights=states)


def product(weight: WeightState) -> np.ndarray:
    return weight.frozen_b.astype(np.float64) @ weight.frozen_a


@pytest.fixture
def weights() -> tuple[Weight, ...]:
    return t5_weights(T5Config.parse(CONFIG), "decoder")


@pytest.fixture
def state(weights: tuple[Weight, ...]) -> AdapterState:
    """Every second weight has an adapter; ranks from 1 to 7, unequal between neighbours and between block 1 and 11."""
    return adapter(weights, {w.name: 1 + (5 * i) % 7 for i, w in enumerate(weights) if i % 2 == 0})


def random_t5(seed: int) -> Any:
    """A T5 of CONFIG with random weights, in evaluation mode."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    return T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, **CONFIG)).eval()


def with_peft(base: Any, folder: Path) -> Any:
    """The base with the folder's adapter. Missing or unexpected keys are warnings of peft, and so errors here."""
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # peft uses names that transformers 5 has deprecated; that is between the two of them.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(peft|transformers)\.")
        return peft.PeftModel.from_pretrained(base, str(folder))


def added(model: Any) -> dict[str, np.ndarray]:
    """ΔW of each weight that has an adapter, by the weight's name in the base, float64."""
    modules = model.get_base_model().named_modules()
    return {
        name: module.get_delta_weight("default").detach().double().numpy()
        for name, module in modules
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.slow
@pytest.mark.parametrize("rank", [None, 3])
def test_peft_loads_what_was_exported(state: AdapterState, tmp_path: Path, rank: int | None) -> None:
    """`PeftModel.from_pretrained` reproduces every ΔW to float32 rounding, on just the weights that have one."""
    summary = export_peft(state, tmp_path / "out", Origin("random/t5"), rank=rank)

    deltas = added(with_peft(random_t5(0), summary.folder))

    expected = {name: product(w) for name, w in state.weights.items() if w.frozen_b.size}
    assert deltas.keys() == expected.keys()
    assert summary.n_weights == len(expected)
    assert summary.rank == (rank or 7)
    for name, w in expected.items():
        if rank is not None:
            u, s, vt = np.linalg.svd(w, full_matrices=False)
            w = (u[:, :rank] * s[:rank]) @ vt[:rank]
        assert np.linalg.norm(deltas[name] - w) <= 1e-6 * np.linalg.norm(w), name


@pytest.mark.slow
def test_the_exported_adapter_changes_the_model_as_merged_weights_do(state: AdapterState, tmp_path: Path) -> None:
    """The adapter on the base gives the same outputs as ΔW added to the base's weights by hand."""
    import torch

    base, by_hand = random_t5(1), random_t5(1)
    with torch.no_grad():
        for name, weight in state.weights.items():
            by_hand.get_submodule(name).weight += torch.from_numpy(product(weight)).float()

    folder = export_peft(state, tmp_path / "out", Origin("random/t5")).folder
    inputs = {"input_ids": torch.arange(12)[None], "labels": torch.arange(5)[None]}
    with torch.no_grad():
        plain = base(**inputs).logits
        adapted = with_peft(base, folder)(**inputs).logits
        expected = by_hand(**inputs).logits

    assert not torch.allclose(plain, expected, atol=1e-2)
    torch.testing.assert_close(adapted, expected, atol=1e-4, rtol=1e-4)


def test_patterns_match_one_module_each(weights: tuple[Weight, ...]) -> None:
    """Matched as peft does it, each rank pattern finds its own module and no other: not block.11 by block.1."""
    names = [w.name for w in weights]
    config = lora_config({name: i + 1 for i, name in enumerate(names)}, "base")

    for i, name in enumerate(names):
        found = [key for key in config["rank_pattern"] if re.match(rf"(.*\.)?({key})$", name)]
        assert [config["rank_pattern"][key] for key in found] == [i + 1]
        assert config["alpha_pattern"][found[0]] == i + 1


def test_the_folder_says_what_it_is(state: AdapterState, tmp_path: Path) -> None:
    """Files, sizes and a README with the base's name; nothing else is left beside it."""
    summary = export_peft(state, tmp_path / "sub" / "out", Origin("google/flan-t5-small"), rank=2)

    names = {path.name for path in summary.folder.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", MARKER, "README.md"}
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["out"]
    assert summary.size_bytes == (summary.folder / "adapter_model.safetensors").stat().st_size
    assert "from_pretrained('google/flan-t5-small')" in (summary.folder / "README.md").read_text()
    config = json.loads((summary.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "google/flan-t5-small"


def test_the_folder_says_in_which_form_it_met_its_texts(state: AdapterState, tmp_path: Path) -> None:
    """braid.json names it for programs, the README for people; prefixes are kept to the last space and line break."""
    form = TextForm("Read:\n", 320, 48, "start")

    folder = export_peft(state, tmp_path / "out", Origin("base", form=form, run_id="run-1")).folder

    assert json.loads((folder / MARKER).read_text()) == {
        "prefix": "Read:\n",
        "truncate_source": "start",
        "max_source_tokens": 320,
        "max_target_tokens": 48,
        "version": 4,
        "run": "run-1",
    }
    readme = (folder / "README.md").read_text()
    assert r"'Read:\n' + " in readme and "max_new_tokens=48" in readme and "the start was left out" in readme


def test_a_zero_adapter_is_not_exported(weights: tuple[Weight, ...], tmp_path: Path) -> None:
    """Before the first round there is nothing; the error says so and no folder appears."""
    with pytest.raises(NothingToExportError, match="zero"):
        export_peft(initial_state(weights), tmp_path / "out", Origin("base"))

    assert not any(tmp_path.iterdir())


def test_a_foreign_folder_is_kept(state: AdapterState, tmp_path: Path) -> None:
    """A folder or file that no export wrote is refused; with force it moves aside whole, and never a second time."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")

    for name in ("out", "file"):
        with pytest.raises(NothingToExportError, match="not written by an export"):
            export_peft(state, tmp_path / name, Origin("base"))
    export_peft(state, tmp_path / "out", Origin("base"), force=True)

    assert (tmp_path / "out.old" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "out" / MARKER).unlink()
    with pytest.raises(NothingToExportError, match=r"out\.old"):
        export_peft(state, tmp_path / "out", Origin("base"), force=True)
    assert (tmp_path / "out.old" / "thesis.txt").exists()


def test_an_export_replaces_an_older_one(state: AdapterState, tmp_path: Path) -> None:
    """The new files take the place of the old ones at once, and only they are there; an empty folder is filled."""
    (tmp_path / "out").mkdir()
    export_peft(state, tmp_path / "out", Origin("base"))
    (tmp_path / "out" / "stray").write_text("x")

    export_peft(state, tmp_path / "out", Origin("base"), rank=1)

    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 1
    assert not (tmp_path / "out" / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_export_leaves_everything_as_it_was(
    state: AdapterState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disk full while writing, or while the folders change places: the old export stands, nothing is left behind."""
    export_peft(state, tmp_path / "out", Origin("base"), rank=1)
    fired = []

    def full(*args: Any, **kwargs: Any) -> None:
        fired.append(args)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aggregator.export.save_file", full)
        with pytest.raises(OSError, match="No space"):
            export_peft(state, tmp_path / "out", Origin("base"), rank=2)
    rename = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda self, to: full(self) if self.name == "new" else rename(self, to))
        with pytest.raises(OSError, match="No space"):
            export_peft(state, tmp_path / "out", Origin("base"), rank=2)

    assert len(fired) == 2
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["r"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
