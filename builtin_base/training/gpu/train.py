"""Training within minutes: warmup, a stable rate, decay at the end, and exports all along the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer

from builtin_base.training import architecture, loop, packing, scores, speed
from builtin_base.training.batches import open_sources
from builtin_base.training.gpu.carry import unpack
from builtin_base.training.gpu.feed import Feed
from builtin_base.training.gpu.parts import write_parts
from builtin_base.training.gpu.sizes import CARRIED, SIZES
from builtin_base.training.run_log import LOG, log
from builtin_base.training.settings import Settings
from builtin_base.training.state import State, fresh, from_weights, resume
from builtin_base.training.step import workers

DECAY_FROM = 0.7
"""Share of the time after which the rate falls linearly to zero."""

N_EACH, ANSWER_BATCH = 8, 256
"""Programmatic tasks asked of each kind in an evaluation, and how many are answered together."""


def within(minutes: float, settings: Settings) -> loop.Schedule:
    """Make a schedule that warms up, stays, and falls to zero when the minutes of all starts together are over."""

    def factor(state: State) -> float | None:
        progress = state.elapsed_s / (60.0 * minutes)
        if progress >= 1.0:
            return None
        warmup = (state.step - state.warm_from + 1) / settings.warmup_steps
        return min(1.0, warmup, (1.0 - progress) / (1.0 - DECAY_FROM))

    return factor


def train(carried: Path, work: Path, out: Path, name: str, minutes: float, n_workers: int) -> None:
    """Train one model, or go on training it.

    Args:
        carried: what `carry.pack_for_gpu` wrote.
        work: the run's folder on this machine: text, checkpoint, log.
        out: what is brought back: weights in parts, and the log.
        name: of the model in `SIZES`.
        minutes: of training, all starts together.
        n_workers: processes that draw batches.
    """
    settings = SIZES[name].settings
    out.mkdir(parents=True, exist_ok=True)
    if not (work / "text" / "train.safetensors").exists():
        unpack(carried, work)
    state = resume(settings, work)
    began = "checkpoint" if state else "carried weights" if name == CARRIED else "nothing"
    if state is None:
        state = from_weights(settings, carried / CARRIED) if name == CARRIED else fresh(settings, SIZES[name].shape)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    sources = open_sources(work / "text", tokenizer, settings.batch_tokens, settings.seed)
    with Feed(work, settings.batch_tokens, settings.seed, n_workers) as feed, workers(1) as pool:
        peak = speed.measure(state, feed.draw(state.step))
        log(work, {"start": began, "model": name, "step": state.step, **_machine(state, peak)})
        job = loop.Work(
            feed.draw,
            lambda state: scores.measure(state.model, sources, N_EACH, ANSWER_BATCH),
            _bring_back(work, out, name),
            peak,
        )
        loop.run(state, settings, work, job, pool, within(minutes, settings))
        log(work, {"step": state.step, "tokens": state.n_tokens, **job.evaluate(state), "end": True})
    shutil.copyfile(work / LOG, out / f"{name}.{LOG}")


def _machine(state: State, peak: speed.Peak) -> dict[str, str | float]:
    device = next(state.model.parameters()).device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "processors",
        "torch": torch.__version__,
        "parameters": sum(weight.numel() for weight in state.model.parameters()),
        "peak_tflop_per_s": round(peak.flop_per_s / 1e12, 2),
        "mflop_per_token": round(peak.flop_per_token / 1e6, 1),
    }


def _bring_back(work: Path, out: Path, name: str) -> loop.Saved:
    """Make what writes the weights and the log where they are brought back from, at each checkpoint."""

    def write(state: State) -> None:
        sizes = architecture.sizes(state.model.config.to_dict())
        write_parts(out, name, packing.pack_weights(state.model.state_dict()), sizes, state.step)
        shutil.copyfile(work / LOG, out / f"{name}.{LOG}")

    return write
