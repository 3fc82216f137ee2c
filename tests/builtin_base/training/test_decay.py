"""A branch is decayed and exported while its main line stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from builtin_base.training import batches
from builtin_base.training.settings import Settings
from tests.fakes.base_training import TINY, write_run_folder

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from builtin_base.training import card, decay, export, loop, model_folder, state, step  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import
SETTINGS = Settings(batch_tokens=256)


@pytest.fixture(scope="module")
def main_line(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("base") / "main"
    write_run_folder(folder, tokenizer)
    state.save(state.fresh(SETTINGS, TINY), folder)
    return folder


@pytest.fixture(scope="module")
def branch(main_line: Path, sources: batches.Sources) -> Path:
    """A branch that has decayed over 1,500 tokens."""
    work = loop.Work(lambda number: batches.draw(sources, 256, 0, number), lambda state: {})
    folder = main_line.parent / "branch"
    with step.workers(2) as pool:
        assert decay.run_branch(main_line, folder, 1_500, SETTINGS, work, pool)
    return folder


def test_branch_leaves_main_line_alone(main_line: Path, branch: Path) -> None:
    """The branch has gone on and its rate has fallen; the main line's checkpoint is what it was."""
    main, decayed = state.resume(SETTINGS, main_line), state.read_checkpoint(branch)
    assert main is not None and decayed is not None
    assert main.step == 0 < decayed["step"]
    assert all(
        group["lr"] < group["base_lr"] / 2 for optimizer in decayed["optimizers"] for group in optimizer["param_groups"]
    )


def test_branch_is_exported_in_both_forms(branch: Path) -> None:
    """Packed and plain weights are the same model."""
    packed, _ = model_folder.load(branch / "export/packed")
    plain, _ = model_folder.load(branch / "export/plain")
    assert torch.allclose(packed.lm_head.weight, plain.lm_head.weight, atol=1e-2)


def test_branch_needs_a_main_line(tmp_path: Path) -> None:
    """The message names the checkpoint that is missing."""
    work = loop.Work(lambda number: {}, lambda state: {})
    with step.workers(1) as pool, pytest.raises(FileNotFoundError, match="nothing to branch from"):
        decay.run_branch(tmp_path, tmp_path / "branch", 1, SETTINGS, work, pool)


def test_linear_decay_ends() -> None:
    """The rate falls from one to zero over the tokens asked for, and the run ends there."""
    schedule, at = decay.linear(100, 50), state.fresh(SETTINGS, TINY)
    factors = []
    for at.n_tokens in (100, 125, 149, 150):
        factors.append(schedule(at))
    assert factors == [1.0, 0.5, pytest.approx(0.02), None]


def test_a_base_is_shipped_with_its_card(branch: Path, tmp_path: Path) -> None:
    """Without a card, or larger than allowed, nothing is shipped; else all files are, and the card has the numbers."""
    packed = branch / "export/packed"
    with pytest.raises(FileNotFoundError, match="card"):
        export.ship(packed, tmp_path / "shipped")

    written = card.write_card(branch, "| ROUGE-L | 12.3 |", note="It began at the pilot.")
    with pytest.raises(ValueError, match="allowed"):
        export.ship(packed, tmp_path / "shipped", max_bytes=1_000)
    assert not (tmp_path / "shipped").exists()
    export.ship(packed, tmp_path / "shipped")

    assert {path.name for path in (tmp_path / "shipped").iterdir()} == {path.name for path in packed.iterdir()}
    text = written.read_text(encoding="utf-8")
    for part in ("| ROUGE-L | 12.3 |", "It began at the pilot.", "`numpy`", "databricks-dolly-15k", "title 3"):
        assert part in text
