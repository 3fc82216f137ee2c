"""One training step: the gradients of several batches beside each other, then Muon and AdamW."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import T5ForConditionalGeneration

from builtin_base.training import architecture
from builtin_base.training.batches import Batch, n_real_tokens
from builtin_base.training.state import State, device, refresh


def workers(n_threads: int) -> ThreadPoolExecutor:
    """Make the threads on which batches run beside each other, each with one thread for the operations inside.

    Two threads inside one small matrix product spend, on two shared cores, most of their time waiting for each other.
    """
    torch.set_num_threads(1)
    return ThreadPoolExecutor(n_threads, initializer=torch.set_num_threads, initargs=(1,))


def train_step(
    state: State, drawn: Mapping[str, Batch], factor: float, clip_norm: float, pool: ThreadPoolExecutor
) -> dict[str, float]:
    """Train one step, in which each batch's mean loss counts alike.

    Args:
        state: changed in place; unchanged but for its step number where a loss is not finite.
        drawn: batches by name.
        factor: rate relative to the stable one.
        clip_norm: largest norm of the gradient.
        pool: where batches run, from `workers`.

    Returns:
        The losses in nats per token, by name.
    """
    jobs = [pool.submit(_gradients, state.working, batch) for batch in drawn.values()]
    results = [job.result() for job in jobs]
    losses = {name: loss for name, (loss, _) in zip(drawn, results, strict=True)}
    state.step += 1
    if not all(math.isfinite(loss) for loss in losses.values()):
        return losses
    for weight, *parts in zip(state.model.parameters(), *(gradients for _, gradients in results), strict=True):
        weight.grad = torch.stack(parts).mean(0, dtype=weight.dtype)
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), clip_norm)
    for group in architecture.groups(*state.optimizers):
        group["lr"] = group["base_lr"] * factor
    for done in [pool.submit(optimizer.step) for optimizer in state.optimizers]:
        done.result()
    refresh(state)
    state.n_tokens += n_real_tokens(drawn)
    return losses


def _gradients(model: T5ForConditionalGeneration, batch: Batch) -> tuple[float, tuple[torch.Tensor, ...]]:
    """Compute (loss, its gradient for each parameter) without touching ``.grad``."""
    source, target = (torch.as_tensor(ids, device=device()) for ids in batch)
    loss = architecture.token_losses(model, source, target)[0].mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return float(loss.detach()), gradients
