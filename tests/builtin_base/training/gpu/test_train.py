"""A training within minutes, end to end in miniature on processors: carried there, trained, resumed, brought back."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from builtin_base.training.settings import Settings
from scripts.layout import imports
from scripts.python_files import python_files
from tests.fakes.base_training import TINY, write_run_folder

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from click.testing import CliRunner  # noqa: E402

from builtin_base.training import architecture, export, model_folder, packing, state  # noqa: E402
from builtin_base.training.__main__ import main as training  # noqa: E402
from builtin_base.training.gpu import parts, sizes  # noqa: E402
from builtin_base.training.gpu.__main__ import main  # noqa: E402
from builtin_base.training.gpu.train import DECAY_FROM, within  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import

THERE = {"torch", "transformers", "tokenizers", "safetensors", "numpy"}
"""Packages that a lent machine holds."""

OURS = ("builtin_base", "braid_common")


def rows(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / f"{name}.log.jsonl").read_text().splitlines()]


def test_from_a_run_to_a_model_folder(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed by one command, trained by another that resumes, joined by a third."""
    monkeypatch.setattr("builtin_base.training.gpu.train.N_EACH", 1)
    run, carried, out = tmp_path / "run", tmp_path / "carried", tmp_path / "out"
    write_run_folder(run, tokenizer)
    state.save(state.fresh(Settings(), TINY), run)
    packed = CliRunner().invoke(
        training, ["pack-for-gpu", str(run), str(carried), "--mebibytes", "2"], catch_exceptions=False
    )
    assert packed.exit_code == 0, packed.output
    train = [str(carried), "--size", "tiny", "--out", str(out), "--work", str(tmp_path / "work"), "--workers", "1"]

    assert main([*train, "--minutes", "0.02"]) == 0
    first = rows(out, "tiny")
    stopped = state.resume(Settings(), tmp_path / "work")
    assert stopped is not None
    assert main([*train, "--minutes", str((stopped.elapsed_s + 0.3) / 60.0)]) == 0
    second = rows(out, "tiny")[len(first) :]

    assert first[0]["start"] == "nothing" and first[0]["device"] == "processors"
    assert {"tokens_per_s", "peak_share", "programmatic", "span"} <= first[1].keys()
    assert first[-1]["end"] and {"held_out", "exact"} <= first[-1].keys()
    assert (second[0]["start"], second[0]["step"]) == ("checkpoint", first[-1]["step"])
    assert second[-1]["step"] > first[-1]["step"]  # type: ignore[operator]
    joined = CliRunner().invoke(training, ["from-gpu", str(out), "tiny", str(tmp_path / "model")])
    assert joined.exit_code == 0, joined.output
    model, _ = model_folder.load(tmp_path / "model")
    trained = state.resume(Settings(), tmp_path / "work")
    assert trained is not None
    torch.testing.assert_close(model.lm_head.weight, trained.model.lm_head.weight, atol=1e-2, rtol=0.1)


def test_carried_weights_are_where_the_small_model_begins(tmp_path: Path) -> None:
    """Nothing is carried: the error names the first file that is missing, with status 1."""
    assert main([str(tmp_path), "--size", "small", "--out", str(tmp_path / "out"), "--minutes", "1"]) == 1


def test_the_rate_follows_the_clock() -> None:
    """Warmup, stable, linear to zero at the end of the minutes, and then no more."""
    schedule, at = within(10.0, Settings(warmup_steps=100)), state.fresh(Settings(), TINY)
    at.step, at.elapsed_s = 49, 10.0
    assert schedule(at) == pytest.approx(0.5)
    at.step = 5_000
    assert schedule(at) == 1.0
    at.elapsed_s = 600.0 * (1.0 + DECAY_FROM) / 2.0
    assert schedule(at) == pytest.approx(0.5)
    at.elapsed_s = 600.0
    assert schedule(at) is None


def test_only_what_a_lent_machine_has_is_imported() -> None:
    """Followed from the entry through all files of ours: the standard library, and packages that are there."""
    files = {file.module: file for file in python_files(OURS)}
    graph = imports(files.values())
    reached, ahead = set[str](), ["builtin_base.training.gpu.__main__"]
    while ahead:
        module = ahead.pop()
        if module not in reached:
            reached.add(module)
            ahead += graph[module]
    statements = [node for module in reached for node in ast.walk(files[module].tree)]
    names = {alias.name for node in statements if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in statements if isinstance(node, ast.ImportFrom) and node.module}
    packages = {name.partition(".")[0] for name in names}

    assert {"builtin_base.training.step", "builtin_base.training.text.rows"} <= reached
    assert packages - sys.stdlib_module_names - set(OURS) <= THERE


def test_the_entry_is_light() -> None:
    """Processes that draw batches import the entry first: it loads nothing of ours at its top."""
    source = Path("builtin_base/training/gpu/__main__.py").read_text(encoding="utf-8")
    names = [ast.unparse(node) for node in ast.parse(source).body if isinstance(node, (ast.Import, ast.ImportFrom))]

    assert not [name for name in names if "builtin_base" in name or "torch" in name]


@pytest.mark.parametrize("name", ["small", "large"])
def test_sizes_fit_what_may_be_shipped(name: str, tmp_path: Path) -> None:
    """12 MB for the small base, 24 for the larger; parts of at most 16 MiB, and few enough of them."""
    model = architecture.build(architecture.config(**sizes.SIZES[name].shape), seed=0)
    packed = packing.pack_weights(model.state_dict())
    shape = architecture.sizes(model.config.to_dict())

    files = parts.write_parts(tmp_path, name, packed, shape, step=3)

    back, their_shape = parts.read_parts(tmp_path, name)
    assert their_shape == shape and back.keys() == packed.keys()
    assert all(torch.equal(back[key], packed[key]) for key in packed)
    assert len(files) <= 2 and max(path.stat().st_size for path in files) < 16 << 20
    total = sum(path.stat().st_size for path in files) + 540_000  # the tokenizer
    assert total < (export.MAX_FOLDER_BYTES if name == sizes.CARRIED else 24_000_000)


def test_parts_of_two_exports_do_not_join(tmp_path: Path) -> None:
    """A part that is missing, or of another step, is an error that says what to bring."""
    big = {f"w{i}": torch.zeros(9 << 20, dtype=torch.int8) for i in range(2)}
    first, _ = parts.write_parts(tmp_path, "a", big, {}, step=1)
    kept = first.read_bytes()
    parts.write_parts(tmp_path, "a", big, {}, step=2)
    first.write_bytes(kept)

    with pytest.raises(ValueError, match="not of one export"):
        parts.read_parts(tmp_path, "a")
    first.unlink()
    with pytest.raises(ValueError, match="not of one export"):
        parts.read_parts(tmp_path, "a")
