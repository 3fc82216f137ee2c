"""The settings of a run, and the file in which its folder keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from braid_common.atomic_file import write_atomically

SETTINGS = "settings.json"
"""May be edited between two starts."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Numbers that decide a run.

    Attributes:
        matrix_lr: Muon's stable rate, for hidden matrices; see `architecture.optimizers`.
        other_lr: AdamW's, for the rest.
        clip_norm: largest norm of a step's gradient.
        batch_tokens: tokens of one batch with padding; a step takes four batches.
        warmup_steps: steps over which the rate rises after a start from weights alone.
        seed: decides every batch.
        log_every: steps between two lines of the log.
        checkpoint_every_s: seconds between two checkpoints.
        eval_every_s: seconds between two evaluations.
    """

    matrix_lr: float = 2e-3
    other_lr: float = 3e-3
    clip_norm: float = 1.0
    batch_tokens: int = 4_096
    warmup_steps: int = 200
    seed: int = 0
    log_every: int = 25
    checkpoint_every_s: float = 300.0
    eval_every_s: float = 2_400.0


def read_settings(folder: Path) -> Settings:
    """Read a run's settings; the defaults are written where there are none yet.

    Raises:
        ValueError: for a name that is no setting, or a value that is no number; the message names both.
    """
    path = folder / SETTINGS
    if not path.exists():
        write_atomically(path, json.dumps(asdict(Settings()), indent=1).encode() + b"\n")
    values = json.loads(path.read_text(encoding="utf-8"))
    # json alone instead of msgspec: a lent machine with a GPU holds PyTorch and little else.
    if not isinstance(values, dict):
        raise ValueError(f"{path}: wanted an object of settings; delete it for the defaults")
    names = {field.name for field in fields(Settings)}
    for name, value in values.items():
        wanted = int if isinstance(getattr(Settings(), name, None), int) else (int, float)
        if name not in names:
            raise ValueError(f"{path}: {name} is no setting; choose of {', '.join(sorted(names))}")
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise ValueError(f"{path}: {name} is {value!r}; give a {'whole ' if wanted is int else ''}number")
    return Settings(**values)
