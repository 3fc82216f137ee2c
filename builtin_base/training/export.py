"""Model folders made of a checkpoint: ``export/packed`` in 8 bits, as shipped, and ``export/plain`` in bf16."""

from __future__ import annotations

import shutil
from pathlib import Path

import builtin_base
from builtin_base.training import architecture, packing
from builtin_base.training.model_folder import write_packed, write_plain
from builtin_base.training.state import CHECKPOINT, read_checkpoint

MAX_FOLDER_BYTES = 12_000_000
"""Files of the shipped model together; what the project is willing to carry in its repository and its wheel."""

CARD = "README.md"


def export(folder: Path) -> Path:
    """Write a folder's checkpoint as model folders; the packed one's place.

    Raises:
        FileNotFoundError: where there is no checkpoint.
        ValueError: if a weight is not finite.
    """
    content = read_checkpoint(folder)
    if content is None:
        raise FileNotFoundError(f"{folder / CHECKPOINT} is not there: train first, or give another folder")
    sizes = architecture.sizes(content["config"])
    write_packed(folder / "export" / "packed", packing.pack_weights(content["model"]), sizes, folder)
    write_plain(folder / "export" / "plain", content["model"], sizes, folder)
    return folder / "export" / "packed"


def ship(packed: Path, out: Path | None = None, max_bytes: int = MAX_FOLDER_BYTES) -> None:
    """Put a packed model folder, with its card, in the place of the shipped one; file by file, each at once.

    Args:
        packed: of `export`, with the card that `card.write_card` wrote.
        out: the folder to replace; the package's own where None.
        max_bytes: largest folder.

    Raises:
        FileNotFoundError: where the card is missing.
        ValueError: if the folder is too large.
    """
    out = out or builtin_base.folder()
    if not (packed / CARD).exists():
        raise FileNotFoundError(f"{packed / CARD} is not there: write the card first, a base ships with measurements")
    size = folder_bytes(packed)
    if size > max_bytes:
        raise ValueError(f"{packed} takes {size:,} bytes of the {max_bytes:,} allowed")
    out.mkdir(exist_ok=True)
    for path in sorted(packed.iterdir()):
        fresh = out / f"{path.name}.new"
        shutil.copyfile(path, fresh)
        fresh.replace(out / path.name)


def folder_bytes(folder: Path) -> int:
    """Size of a folder's files, in bytes."""
    return sum(path.stat().st_size for path in folder.iterdir())
