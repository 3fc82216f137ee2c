"""The run: step after step, with a log, checkpoints and evaluations, until its schedule ends or somebody stops it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builtin_base.training.batches import Batch
from builtin_base.training.run_log import Since, log
from builtin_base.training.settings import Settings
from builtin_base.training.speed import Peak
from builtin_base.training.state import State, save
from builtin_base.training.step import train_step

MAX_BAD_STEPS = 20
"""A run gives up after so many steps in a row whose loss is not finite."""

Schedule = Callable[[State], "float | None"]
"""State → rate relative to the stable one; None ends the run."""


Evaluate = Callable[[State], Mapping[str, Any]]
"""State → what the log says of its quality."""

Saved = Callable[[State], None]
"""Is told of a checkpoint."""


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a run at each step and now and then.

    Attributes:
        draw: number of a step → its batches by name.
        evaluate: measures a state for the log.
        saved: is told of each checkpoint.
        peak: what the log's speed is compared with; None leaves that out.
    """

    draw: Callable[[int], Mapping[str, Batch]]
    evaluate: Evaluate
    saved: Saved = lambda state: None
    peak: Peak | None = None


def stable(settings: Settings) -> Schedule:
    """Make the main line's schedule: a linear warmup, then the full rate without end."""
    return lambda state: min(1.0, (state.step - state.warm_from + 1) / settings.warmup_steps)


def run(
    state: State, settings: Settings, folder: Path, work: Work, pool: ThreadPoolExecutor, schedule: Schedule
) -> bool:
    """Train until the schedule ends or SIGTERM or SIGINT comes; save at the end in either case.

    Args:
        state: changed in place.
        settings: of the run.
        folder: where checkpoints and the log go.
        work: batches and evaluations.
        pool: where batches run, from `step.workers`.
        schedule: of the rate.

    Returns:
        Whether the schedule ended.

    Raises:
        FloatingPointError: after `MAX_BAD_STEPS` steps in a row whose loss is not finite.
    """
    with _asked_to_stop() as stop:
        ended = _train(state, settings, folder, work, pool, schedule, stop)
    _save(state, folder, work)
    return ended


def _train(
    state: State,
    settings: Settings,
    folder: Path,
    work: Work,
    pool: ThreadPoolExecutor,
    schedule: Schedule,
    stop: threading.Event,
) -> bool:
    """Take steps until the schedule ends (True) or a stop is asked for (False)."""
    began_s = time.monotonic() - state.elapsed_s
    last_save_s = last_eval_s = time.monotonic()
    since, n_bad = Since(state.step, state.n_tokens), 0
    while (factor := schedule(state)) is not None and not stop.is_set():
        losses = train_step(state, work.draw(state.step), factor, settings.clip_norm, pool)
        state.elapsed_s = time.monotonic() - began_s
        n_bad = 0 if all(map(math.isfinite, losses.values())) else n_bad + 1
        if n_bad > MAX_BAD_STEPS:
            raise FloatingPointError(f"step {state.step}: losses {losses}; lower the rates in settings.json")
        since.add(losses)
        if state.step % settings.log_every == 0:
            log(folder, since.row(state, work.peak))
            since = Since(state.step, state.n_tokens)
        if time.monotonic() - last_save_s > settings.checkpoint_every_s:
            _save(state, folder, work)
            last_save_s = time.monotonic()
        if time.monotonic() - last_eval_s > settings.eval_every_s:
            log(folder, {"step": state.step, "tokens": state.n_tokens, **work.evaluate(state)})
            last_eval_s = time.monotonic()
            since = Since(state.step, state.n_tokens)
    return factor is None


def _save(state: State, folder: Path, work: Work) -> None:
    save(state, folder)
    work.saved(state)


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set an event when SIGTERM or SIGINT comes; the run ends after its step."""
    asked = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: asked.set()) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
