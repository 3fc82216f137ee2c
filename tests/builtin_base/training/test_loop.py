"""The run goes on until its schedule ends or somebody stops it, and resumes from the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from builtin_base.training import batches
from builtin_base.training.settings import SETTINGS, Settings
from tests.fakes.base_training import TINY, write_run_folder

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from click.testing import CliRunner  # noqa: E402

from builtin_base.training import loop, speed, state, step  # noqa: E402
from builtin_base.training.__main__ import main  # noqa: E402
from builtin_base.training.run_log import LOG  # noqa: E402

pytestmark = pytest.mark.slow  # transformers alone takes seconds to import


def stopping_at(step_number: int, sources: batches.Sources) -> loop.Work:
    """Work that asks its own process to stop while a step is drawn."""

    def draw(number: int) -> Mapping[str, batches.Batch]:
        if number == step_number:
            os.kill(os.getpid(), signal.SIGTERM)
        return batches.draw(sources, 256, 0, number)

    return loop.Work(draw, lambda state: {"seen": state.step})


def test_sigterm_ends_a_run_after_its_step(tmp_path: Path, sources: batches.Sources) -> None:
    """The step is finished and saved, the log has it, and the handler of before is back."""
    settings = Settings(batch_tokens=256, log_every=1, eval_every_s=0.0)
    before = signal.getsignal(signal.SIGTERM)
    run = state.fresh(settings, TINY)

    with step.workers(1) as pool:
        ended = loop.run(run, settings, tmp_path, stopping_at(2, sources), pool, loop.stable(settings))

    assert not ended and signal.getsignal(signal.SIGTERM) is before
    saved = state.resume(settings, tmp_path)
    assert saved is not None and saved.step == 3
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 1, 2, 2, 3, 3]
    assert {"tokens_per_s", "tokens_per_cpu_s", "span", "summary", "programmatic"} <= rows[0].keys()
    assert rows[1]["seen"] == 1


def test_a_run_that_only_diverges_is_given_up(tmp_path: Path, sources: batches.Sources) -> None:
    """The message says what to lower."""
    settings = Settings(batch_tokens=256)
    run = state.fresh(settings, TINY)
    run.working.lm_head.weight.data[:] = float("nan")
    drawn = batches.draw(sources, 256, 0, 0)
    work = loop.Work(lambda number: {"span": drawn["span"]}, lambda state: {})

    with step.workers(1) as pool, pytest.raises(FloatingPointError, match="lower the rates"):
        loop.run(run, settings, tmp_path, work, pool, loop.stable(settings))


def test_the_rate_rises_and_stays() -> None:
    """Warmup counts from where a run began with weights alone."""
    schedule, at = loop.stable(Settings(warmup_steps=4)), state.fresh(Settings(), TINY)
    factors = []
    for at.step in (0, 1, 3, 400):
        factors.append(schedule(at))
    assert factors == [0.25, 0.5, 1.0, 1.0]


def test_arithmetic_a_token_is_that_of_the_matrices(sources: batches.Sources) -> None:
    """A product of n weights takes 2·n FLOP a token forward and twice that backward, and attention adds to it."""
    run = state.fresh(Settings(), TINY)
    source = np.full((2, 16), 5)
    need = speed.flop_per_token(run, {"span": (source, source)})

    linear = {name: w.numel() for name, w in run.model.named_parameters() if w.ndim == 2 and "bias" not in name}
    encoder = sum(n for name, n in linear.items() if name.startswith("encoder.block"))
    crossed = sum(n for name, n in linear.items() if "EncDecAttention.k" in name or "EncDecAttention.v" in name)
    decoder = sum(n for name, n in linear.items() if name.startswith("decoder.block")) - crossed
    head = linear["lm_head.weight"]
    products = 6 * (encoder + crossed + decoder + head) / 2  # a token here is a source's and half a target's
    assert products < need < 1.5 * products


def test_the_command_resumes(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, sources: batches.Sources
) -> None:
    """`run` goes on from the folder's checkpoint, of whatever size its model is."""
    folder = tmp_path / "run"
    write_run_folder(folder, tokenizer)
    (folder / SETTINGS).write_text(json.dumps({"batch_tokens": 256, "log_every": 1}))
    first = state.fresh(Settings(), TINY)
    first.step, first.n_tokens = 41, 1_000
    state.save(first, folder)
    monkeypatch.setattr("builtin_base.training.__main__._work", lambda *_: stopping_at(41, sources))

    done = CliRunner().invoke(main, ["run", str(folder), "--threads", "1"], catch_exceptions=False)

    assert done.exit_code == 0, done.output
    saved = state.resume(Settings(), folder)
    assert saved is not None and saved.step == 42 and saved.n_tokens > 1_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["run", "."], "prepare"), (["export", "."], "train first"), (["from-gpu", ".", "large", "out"], "brought back")],
)
def test_what_is_missing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """One line that says what to do first, and status 1."""
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(main, arguments)

    assert done.exit_code == 1
    assert done.output.startswith("Error: ") and message in done.output


def test_weights_of_another_tokenizer_are_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Their pieces are other words."""
    folder = tmp_path / "run"
    write_run_folder(folder, tokenizer)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tokenizer.json").write_text("{}")

    done = CliRunner().invoke(main, ["run", str(folder), "--weights", str(tmp_path / "weights")])

    assert done.exit_code == 1 and "another tokenizer" in done.output
