"""The state that a run resumes from, and the checkpoint in which its folder keeps it."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from braid_common.atomic_file import write_atomically
from builtin_base.training import architecture
from builtin_base.training.model_folder import read_sizes, read_weights
from builtin_base.training.settings import Settings

CHECKPOINT = "checkpoint.pt"
_COUNTS = ("step", "n_tokens", "elapsed_s", "warm_from")


@dataclass(slots=True)
class State:
    """A run between two steps.

    Attributes:
        model: the weights in fp32.
        working: their copy in bf16, on which gradients are computed; autocast casts each weight anew at each use
            and keeps activations in fp32, which takes 9 % longer here.
        optimizers: of `model`.
        step: steps taken.
        n_tokens: tokens seen without padding.
        elapsed_s: time over all starts.
        warm_from: the step at which warmup began.
    """

    model: T5ForConditionalGeneration
    working: T5ForConditionalGeneration
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    n_tokens: int = 0
    elapsed_s: float = 0.0
    warm_from: int = 0


def device() -> torch.device:
    """Name where to train: a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fresh(settings: Settings, sizes: Mapping[str, int]) -> State:
    """Make the state before the first step, with random weights.

    Args:
        settings: of the run.
        sizes: of the architecture, as `architecture.config` takes them; the builtin base's where left out.
    """
    model = architecture.build(architecture.config(**sizes), settings.seed)
    torch.nn.Module.to(model, device())  # transformers' own `to` has no usable types
    working = copy.deepcopy(model)
    torch.nn.Module.to(working, torch.bfloat16)
    return State(model, working, architecture.optimizers(model, settings.matrix_lr, settings.other_lr))


def from_weights(settings: Settings, folder: Path) -> State:
    """Make the state before the first step from a model folder, packed or plain."""
    state = fresh(settings, read_sizes(folder))
    state.model.load_state_dict(read_weights(folder))
    refresh(state)
    return state


@torch.no_grad()
def refresh(state: State) -> None:
    """Copy the weights into the working copy."""
    for rounded, weight in zip(state.working.parameters(), state.model.parameters(), strict=True):
        rounded.copy_(weight)


def save(state: State, folder: Path) -> None:
    """Write ``checkpoint.pt``; a stop at any moment leaves a whole one."""
    content = {
        "model": state.model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        "config": state.model.config.to_dict(),
        **{key: getattr(state, key) for key in _COUNTS},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / CHECKPOINT, buffer.getbuffer())


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Read ``checkpoint.pt`` as `save` wrote it; None where there is none."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location=device(), weights_only=True)
    return content


def resume(settings: Settings, folder: Path) -> State | None:
    """Make the state that a folder's checkpoint holds; None where there is none. Rates are the settings'."""
    content = read_checkpoint(folder)
    if content is None:
        return None
    state = fresh(settings, architecture.sizes(content["config"]))
    state.model.load_state_dict(content["model"])
    for optimizer, saved in zip(state.optimizers, content["optimizers"], strict=True):
        rates = [group["base_lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["base_lr"] = rate
    for key in _COUNTS:
        setattr(state, key, content[key])
    refresh(state)
    return state
