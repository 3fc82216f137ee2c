"""The project's own small T5 base, so that everything works on a machine that reaches no model hub. Not FLAN-T5."""

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """Name the folder with the model: config, weights (8 bits a value), tokenizer and model card."""
    return Path(__file__).resolve().parent / "model"
