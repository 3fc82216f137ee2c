"""Scores for a run's log: losses on held-out text and exact answers to programmatic tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import T5ForConditionalGeneration

from braid_common.text_form import DEFAULT_PREFIX
from builtin_base.training import architecture, batches
from builtin_base.training.programmatic import exercises
from builtin_base.training.text.rows import Text
from builtin_base.training.tokenizer import EOS_ID

MAX_SOURCE = 192
"""Longest source that is asked, in tokens, unless said otherwise."""

_ASKED = "asked"
"""Seed of the programmatic tasks that are asked; a run's own seeds are tuples of another form."""


def measure(
    model: T5ForConditionalGeneration, sources: batches.Sources, n_each: int = 12, batch_size: int = 32
) -> dict[str, dict[str, float]]:
    """Measure what the log says: `held_out_losses`, and `exact_answers` to `n_each` tasks of each kind."""
    return {
        "held_out": held_out_losses(model, sources.held_out),
        "exact": exact_answers(model, sources.drawer, n_each, batch_size),
    }


@torch.no_grad()
def held_out_losses(
    model: T5ForConditionalGeneration, held_out: Text, n_batches: int = 6, n_tokens: int = 4_000
) -> dict[str, float]:
    """Measure the loss of each task on held-out text, in nats per token, on the same rows each time."""
    docstrings = Text({}, {key: pairs for key, pairs in held_out.pairs.items() if key == ("summary", "docstring")})
    sides = {"span": held_out, "summary": docstrings}
    sides.update({task: held_out for task, _ in held_out.pairs if task != "summary"})
    losses = {}
    for task, text in sides.items():
        total = n_pieces = 0.0
        for index in range(n_batches if task in ("span", "summary") else 2):
            rng = np.random.default_rng([7, index])
            drawn = batches.draw_spans(text, n_tokens, rng) if task == "span" else None
            source, target = drawn or batches.draw_pairs(text, n_tokens, rng, only=task)[1]
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                values = architecture.token_losses(model, _tensor(source, model), _tensor(target, model))[0]
            total += float(values.sum())
            n_pieces += len(values)
        losses[task] = round(total / n_pieces, 4)
    return losses


def exact_answers(
    model: T5ForConditionalGeneration, drawer: exercises.Drawer, n_each: int = 12, batch_size: int = 32
) -> dict[str, float]:
    """Measure the share of programmatic tasks answered exactly, by greedy decoding, by task and in all ("all").

    Args:
        model: a T5.
        drawer: of the tasks.
        n_each: tasks asked of each kind.
        batch_size: tasks answered together.
    """
    asked = []
    for name in exercises.EXERCISES:
        values = drawer.values(_ASKED, name)
        found: list[tuple[str, list[int], str]] = []
        while len(found) < n_each:
            _, source, target = exercises.draw(values, name)
            ids = drawer.tokenizer.encode(DEFAULT_PREFIX + source).ids
            if len(ids) <= exercises.MAX_SOURCE and len(drawer.tokenizer.encode(target).ids) <= exercises.MAX_TARGET:
                found.append((name, ids, target))
        asked += found
    asked.sort(key=lambda row: len(row[1]))
    written = write(model, drawer.tokenizer, [ids for _, ids, _ in asked], exercises.MAX_TARGET, batch_size)
    right: dict[str, list[bool]] = {name: [] for name in exercises.EXERCISES}
    for (name, _, target), answer in zip(asked, written, strict=True):
        right[name].append(answer == target)
    shares = {name: round(sum(found) / len(found), 3) for name, found in right.items()}
    return {"all": round(sum(map(sum, right.values())) / len(asked), 3), **shares}


def encode_source(tokenizer: Tokenizer, source: str, max_tokens: int = MAX_SOURCE) -> list[int]:
    """Tokenise a source as the model expects it: prefix in front, eos at the end even where it was cut."""
    ids: list[int] = tokenizer.encode(DEFAULT_PREFIX + source).ids
    return ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], EOS_ID]


@torch.no_grad()
def write(
    model: T5ForConditionalGeneration,
    tokenizer: Tokenizer,
    sources: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int = 32,
) -> list[str]:
    """Write an answer to each source by greedy decoding.

    Args:
        model: a T5; its mode is as before afterwards.
        tokenizer: the model's.
        sources: ids with prefix and eos, as `encode_source` gives them.
        max_new_tokens: longest answer, in tokens.
        batch_size: sources answered together.

    Returns:
        The answers, each on one line.
    """
    training = model.training
    model.train(False)
    written: list[str] = []
    for start in range(0, len(sources), batch_size):
        rows = [(np.array(source, dtype=np.uint16),) * 2 for source in sources[start : start + batch_size]]
        ids = _tensor(batches.pad_batch(rows)[0], model)
        output = model.generate(  # type: ignore[misc]
            input_ids=ids, attention_mask=(ids != 0).long(), do_sample=False, max_new_tokens=max_new_tokens
        )
        written += tokenizer.decode_batch([[int(i) for i in row if i > EOS_ID] for row in output])
    model.train(training)
    return [" ".join(text.split()) for text in written]


def _tensor(ids: object, model: T5ForConditionalGeneration) -> torch.Tensor:
    return torch.as_tensor(ids, device=model.device)
