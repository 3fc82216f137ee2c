"""Train the builtin base from nothing: ``python -m builtin_base.training.train --out RUN_DIR --minutes 80 --site
PACKAGES``.

Everything is in RUN_DIR: the corpus, ``tokenizer.json``, the tokenized text, ``checkpoint.pt`` and ``log.jsonl``. The
same command resumes a run that was stopped. The schedule follows the wall clock, so a run ends when it should on a
slow machine too. bf16 autocast with fp32 weights; uses a GPU where there is one.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration

from braid_common.atomic_file import write_atomically
from builtin_base.docstrings import hash_share
from builtin_base.training import architecture, corpus, mixture
from builtin_base.training.sources import Harvest
from builtin_base.training.tokenizer import train_tokenizer, write_config

TASKS = ("span", "summary")
CHECKPOINT = "checkpoint.pt"
TOKENIZER_CHARS = 6_000_000
"""Text that the tokenizer is trained on, in characters: a minute of one core, and ten times as much takes ten."""

WARMUP_UNTIL, DECAY_FROM, FLOOR = 0.01, 0.5, 0.02
"""Part of the time over which the rate rises, and after which it falls linearly to its floor (warmup-stable-decay)."""

FIRST_LOSS_TOLERANCE = 1.0
"""How far the first loss may lie from ln(vocab), in nats: beyond it the initialisation is wrong."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run. `task_tokens`: padded tokens per step of each task; rates as in `model.optimizers`."""

    minutes: float
    task_tokens: int = 4_096
    matrix_lr: float = 4e-3
    other_lr: float = 6e-3
    clip_norm: float = 1.0
    seed: int = 0
    eval_every_s: float = 900.0
    checkpoint_every_s: float = 180.0
    log_every: int = 50


@dataclass(slots=True)
class State:
    """A run's state between two steps. `elapsed_s` is training time over all its starts, without preparation."""

    model: T5ForConditionalGeneration
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    n_tokens: int = 0
    elapsed_s: float = 0.0


def rate_factor(progress: float) -> float:
    """Learning rate relative to its base at a share of the planned time: warmup, stable, linear decay."""
    if progress < WARMUP_UNTIL:
        return max(progress / WARMUP_UNTIL, 0.01)
    return min(1.0, FLOOR + (1.0 - FLOOR) * max(0.0, 1.0 - progress) / (1.0 - DECAY_FROM))


def start(settings: Settings, **changes: Any) -> State:
    """Make the state before the first step; `changes` go to `model.config`."""
    model = architecture.build(architecture.config(**changes), settings.seed)
    torch.nn.Module.to(model, device())  # transformers' own `to` has no usable types
    return State(model, architecture.optimizers(model, settings.matrix_lr, settings.other_lr))


def step(
    state: State, settings: Settings, tokens: mixture.Tokens, progress: float, pool: ThreadPoolExecutor
) -> dict[str, float]:
    """Train one step on a batch of each task, whose mean losses count alike.

    The tasks run beside each other, each on its own thread: two threads inside one small matrix product spend, on two
    shared cores, 60 % of their time waiting for each other (measured with py-spy).

    Args:
        state: changed in place.
        settings: of the run.
        tokens: the training side.
        progress: share of the planned time that is over; decides the rate.
        pool: where the tasks run, from `workers`.

    Returns:
        The losses in nats per token, by task.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    drawn = batches(tokens, settings, state.step)
    jobs = [pool.submit(_gradients, state.model, *drawn[task]) for task in TASKS]
    results = dict(zip(TASKS, (job.result() for job in jobs), strict=True))
    losses = {task: loss for task, (loss, _, _) in results.items()}
    if not all(math.isfinite(loss) for loss in losses.values()):
        raise FloatingPointError(f"step {state.step}: loss {losses} is not finite; lower the rates and resume")
    for weight, *parts in zip(state.model.parameters(), *(result[1] for result in results.values()), strict=True):
        weight.grad = torch.stack(parts).mean(0)
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm)
    for group in architecture.groups(*state.optimizers):
        group["lr"] = group["base_lr"] * rate_factor(progress)
    for done in [pool.submit(optimizer.step) for optimizer in state.optimizers]:
        done.result()
    state.n_tokens += sum(n_tokens for _, _, n_tokens in results.values())
    state.step += 1
    return losses


def workers(n_threads: int) -> ThreadPoolExecutor:
    """Make a thread for each task, with its share of `n_threads` for the operations inside."""
    share = max(1, n_threads // len(TASKS))
    torch.set_num_threads(share)
    return ThreadPoolExecutor(len(TASKS), initializer=torch.set_num_threads, initargs=(share,))


def batches(
    tokens: mixture.Tokens, settings: Settings, step_index: int
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Draw the batches of one step, a function of the seed and the step's index."""
    rng = np.random.default_rng([settings.seed, step_index])
    denoiser = mixture.draw_denoiser(rng)
    max_source = mixture.SHORT_SOURCE if rng.random() < mixture.SHORT_SHARE else mixture.MAX_SOURCE
    drawn = {
        "span": mixture.span_batch(tokens, settings.task_tokens, rng, denoiser),
        "summary": mixture.pair_batch(tokens, settings.task_tokens, rng, max_source),
    }
    return {task: (_tensor(source), _tensor(target)) for task, (source, target) in drawn.items()}


@torch.no_grad()
def evaluate(
    model: T5ForConditionalGeneration, held_out: mixture.Tokens, n_batches: int = 8, n_tokens: int = 4_000
) -> dict[str, float]:
    """Measure held-out loss (nats per token) and accuracy of each task on the same rows each time.

    Only docstrings count for ``summary``, since that is what the base is for; ``span`` has the training mixture.
    """
    docstrings = mixture.Tokens({}, {k: v for k, v in held_out.pairs.items() if k == "docstring"})
    sums = {"span": [0.0, 0.0, 0.0], "summary": [0.0, 0.0, 0.0]}
    model.train(False)
    for index in range(n_batches):
        rng = np.random.default_rng([7, index])
        drawn = {
            "span": mixture.span_batch(held_out, n_tokens, rng),
            "summary": mixture.pair_batch(docstrings, n_tokens, rng),
        }
        for task, (source, target) in drawn.items():
            with torch.autocast(device().type, dtype=torch.bfloat16):
                losses, logits, labels = architecture.token_losses(model, _tensor(source), _tensor(target))
            sums[task][0] += float(losses.sum())
            sums[task][1] += float((logits.argmax(-1) == labels).sum())
            sums[task][2] += len(labels)
    model.train()
    scores = {f"{task}_loss": total / n for task, (total, _, n) in sums.items()}
    return {**scores, **{f"{task}_accuracy": n_right / n for task, (_, n_right, n) in sums.items()}}


def save(state: State, folder: Path) -> None:
    """Write ``checkpoint.pt``; a stop at any moment leaves a whole one."""
    content = {
        "model": state.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "config": state.model.config.to_dict(),
        **{key: getattr(state, key) for key in ("step", "n_tokens", "elapsed_s")},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getbuffer())


def resume(state: State, folder: Path) -> bool:
    """Load ``checkpoint.pt`` into a fresh state; False where there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return False
    content = torch.load(path, map_location=device(), weights_only=True)
    state.model.load_state_dict(content["model"])
    for optimizer, saved in zip(state.optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    state.step, state.n_tokens, state.elapsed_s = content["step"], content["n_tokens"], content["elapsed_s"]
    return True


def prepare(folder: Path, sites: list[Path], corpus_folder: Path | None) -> tuple[mixture.Tokens, mixture.Tokens]:
    """Make, or read where made before, the corpus, the tokenizer and the tokenized text.

    Returns:
        (training side, held-out side).
    """
    cache = folder / "tokens.msgpack"
    if cache.exists():
        return mixture.decode_sides(cache.read_bytes())
    folder.mkdir(parents=True, exist_ok=True)
    if corpus_folder is None:
        corpus.write(folder, *corpus.gather(sites, [Path(sysconfig.get_paths()["purelib"])]))
        corpus_folder = folder
    text = corpus.read(corpus_folder)
    (folder / "corpus.json").write_bytes((corpus_folder / "corpus.json").read_bytes())
    say(f"corpus: {len(text.documents):,} documents, {len(text.pairs):,} pairs")
    tokenizer = train_tokenizer(_tokenizer_texts(text))
    tokenizer.save(str(folder / "tokenizer.json"))
    write_config(folder)
    say("tokenizer: trained")
    sides = mixture.tokenize(text, Tokenizer.from_file(str(folder / "tokenizer.json")))
    write_atomically(cache, mixture.encode_sides(sides))
    return sides


def run(
    state: State,
    settings: Settings,
    folder: Path,
    train: mixture.Tokens,
    held_out: mixture.Tokens,
    pool: ThreadPoolExecutor,
) -> None:
    """Train until the planned time is over; log, measure and save on the way and at the end."""
    began = time.monotonic() - state.elapsed_s
    last_eval = last_save = last_log = state.elapsed_s
    logged_tokens = state.n_tokens
    recent: dict[str, list[float]] = {"span": [], "summary": []}
    while (elapsed_s := time.monotonic() - began) < settings.minutes * 60.0:
        losses = step(state, settings, train, elapsed_s / (settings.minutes * 60.0), pool)
        state.elapsed_s = time.monotonic() - began
        if state.step == 1:
            check_first_loss(state.model, losses)
        for task, loss in losses.items():
            recent[task].append(loss)
        if state.step % settings.log_every == 0 or state.step <= 3:
            row = {
                "step": state.step,
                "tokens": state.n_tokens,
                "tokens_per_s": round((state.n_tokens - logged_tokens) / (state.elapsed_s - last_log)),
                **{task: round(sum(values) / len(values), 4) for task, values in recent.items()},
                "minutes_left": round(settings.minutes - state.elapsed_s / 60.0, 1),
            }
            log(folder, row)
            last_log, logged_tokens, recent = state.elapsed_s, state.n_tokens, {"span": [], "summary": []}
        if state.elapsed_s - last_eval > settings.eval_every_s:
            log(folder, {"step": state.step, "held_out": evaluate(state.model, held_out)})
            last_eval = state.elapsed_s
        if state.elapsed_s - last_save > settings.checkpoint_every_s:
            save(state, folder)
            last_save = state.elapsed_s
    scores = evaluate(state.model, held_out)
    log(folder, {"step": state.step, "tokens": state.n_tokens, "held_out": scores, "end": True})
    save(state, folder)


def check_first_loss(model: T5ForConditionalGeneration, losses: dict[str, float]) -> None:
    """Refuse to go on from an initialisation whose first loss is not near ln(vocab).

    Raises:
        ValueError: if a task's first loss is further than `FIRST_LOSS_TOLERANCE` from it.
    """
    expected = architecture.expected_first_loss(model.config)
    say(f"first losses {losses}, ln(vocab) {expected:.3f}")
    if any(abs(loss - expected) > FIRST_LOSS_TOLERANCE for loss in losses.values()):
        raise ValueError(f"first losses {losses} are not near ln(vocab) = {expected:.3f}: check the initialisation")


def device() -> torch.device:
    """Name where to train: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def log(folder: Path, row: dict[str, Any]) -> None:
    """Append a row to ``log.jsonl`` and print it."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    say(json.dumps(row))


def say(line: str) -> None:
    """Print a progress line at once, with the time of day."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _gradients(
    model: T5ForConditionalGeneration, source: torch.Tensor, target: torch.Tensor
) -> tuple[float, tuple[torch.Tensor, ...], int]:
    """Compute (loss, its gradient for each parameter, tokens that are not padding) without touching ``.grad``."""
    # The cache of cast weights is shared by all threads, and one thread's backward would free it under another's.
    with torch.autocast(device().type, dtype=torch.bfloat16, cache_enabled=False):
        loss = architecture.token_losses(model, source, target)[0].mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), gradients, int((source != 0).sum() + (target != 0).sum())


def _tensor(ids: mixture.Ids) -> torch.Tensor:
    return torch.from_numpy(ids).to(device())


def _tokenizer_texts(text: Harvest) -> Iterator[str]:
    """Yield an even sample of the training documents."""
    total = sum(len(document.text) for document in text.documents)
    share = min(1.0, TOKENIZER_CHARS / max(total, 1))
    for document in text.documents:
        if hash_share("tokenizer" + document.text) < share:
            yield document.text


def main(argv: list[str] | None = None) -> int:
    """Prepare what is missing, then train or go on training."""
    parser = argparse.ArgumentParser(prog="python -m builtin_base.training.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="run folder; an unfinished run in it is resumed")
    parser.add_argument("--site", type=Path, action="append", default=[], help="folder of packages to read; repeatable")
    parser.add_argument(
        "--corpus", type=Path, help="folder that builtin_base.training.corpus wrote; gathered anew where absent"
    )
    parser.add_argument("--minutes", type=float, required=True, help="wall-clock training time, all starts together")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task-tokens", type=int, default=Settings(1.0).task_tokens, help="tokens per step and task")
    parser.add_argument("--prepare-only", action="store_true", help="stop before the first step")
    args = parser.parse_args(argv)
    train, held_out = prepare(args.out, args.site, args.corpus)
    sizes = {origin: len(stream) for origin, stream in train.streams.items()}
    say(f"training tokens {sizes}, pairs { {o: sum(map(len, b.values())) for o, b in train.pairs.items()} }")
    if args.prepare_only:
        return 0
    settings = Settings(args.minutes, task_tokens=args.task_tokens, seed=args.seed)
    state = start(settings)
    if resume(state, args.out):
        say(f"resumed at step {state.step}, {state.elapsed_s / 60.0:.1f} minutes in")
    with workers(args.threads) as pool:
        run(state, settings, args.out, train, held_out, pool)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
