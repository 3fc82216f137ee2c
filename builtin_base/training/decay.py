"""A branch of the main line whose rate falls to zero, after which its weights can be shipped; the main line goes on.

A model at a stable rate is worth less than it knows: the last part of what it learnt shows only when the rate falls
(warmup-stable-decay, arXiv 2404.06395, section 4). A branch starts from the main line's checkpoint, learns linearly
less over a number of tokens, and is exported; it resumes from its own folder like any run.
"""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from builtin_base.training import loop
from builtin_base.training.export import export
from builtin_base.training.model_folder import copy_tokenizer
from builtin_base.training.run_log import log
from builtin_base.training.settings import Settings
from builtin_base.training.state import CHECKPOINT, State, resume, save
from builtin_base.training.text.documents import REPORT

_START = "branch.json"


def linear(start_tokens: int, n_tokens: int) -> loop.Schedule:
    """Make a schedule that falls from 1 to 0 over `n_tokens` tokens and then ends."""

    def factor(state: State) -> float | None:
        left = 1.0 - (state.n_tokens - start_tokens) / n_tokens
        return left if left > 0.0 else None

    return factor


def run_branch(
    main: Path, branch: Path, n_tokens: int, settings: Settings, work: loop.Work, pool: ThreadPoolExecutor
) -> bool:
    """Decay a branch of a main line and export it.

    Args:
        main: folder of the main line, which has a checkpoint.
        branch: folder of the branch; an unfinished one in it is resumed.
        n_tokens: over how many tokens the rate falls.
        settings: of the main line.
        work: of the main line.
        pool: where batches run.

    Returns:
        Whether the branch came to its end and was exported, rather than stopped by a signal.

    Raises:
        FileNotFoundError: where the main line has no checkpoint.
    """
    branch.mkdir(parents=True, exist_ok=True)
    state = resume(settings, branch) or _begin(main, branch, n_tokens, settings)
    start = read_start(branch)
    schedule = linear(start["start_tokens"], start["decay_tokens"])
    if not loop.run(state, settings, branch, work, pool, schedule):
        return False
    log(branch, {"step": state.step, "tokens": state.n_tokens, **work.evaluate(state), "end": True})
    export(branch)
    return True


def read_start(branch: Path) -> dict[str, int]:
    """Read where a branch began: ``start_step``, ``start_tokens``, and ``decay_tokens`` that it takes."""
    start: dict[str, int] = json.loads((branch / _START).read_text(encoding="utf-8"))
    return start


def _begin(main: Path, branch: Path, n_tokens: int, settings: Settings) -> State:
    """Copy into a branch what it needs of its main line; the checkpoint last, which says that all is there."""
    state = resume(settings, main)
    if state is None:
        raise FileNotFoundError(f"{main / CHECKPOINT} is not there: the main line has nothing to branch from yet")
    copy_tokenizer(main, branch)
    shutil.copyfile(main / "text" / REPORT, branch / REPORT)
    start = {"start_step": state.step, "start_tokens": state.n_tokens, "decay_tokens": n_tokens}
    (branch / _START).write_text(json.dumps(start) + "\n", encoding="utf-8")
    save(state, branch)
    return state
