"""A base of FLAN-T5's true shape with random values, for measuring speed and memory where no download is at hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from braid_common.base.files import WEIGHTS_FILE
from braid_common.base.t5_config import FLAN_T5, T5Config
from braid_common.base.t5_layout import is_matrix, tensor_shapes
from braid_common.base.weights import ROWS_STORAGE, STORAGE_KEY
from quantize.errors import BaseFormatError
from quantize.int8 import LEVELS
from quantize.weight import row_chunks
from quantize.writer import Part, Place, int8_places, write_tensors

VOCABULARY = FLAN_T5["flan-t5-small"].vocab_size
"""Rows of every FLAN-T5's embedding."""

SPECIAL_PIECES = ("<pad>", "</s>", "<unk>")
"""Ids 0, 1 and 2, as in T5's own vocabulary; the word `w0` has id 3, `w1` id 4 and so on."""

SPREAD = 4.0
"""Standard deviations that int8 covers on each side; of a normal distribution 6e-5 lie beyond and are clamped."""


SHAPES: Mapping[str, T5Config] = MappingProxyType(
    {name.removeprefix("flan-t5-"): config for name, config in FLAN_T5.items()}
)
"""Numbers of each FLAN-T5 by the last part of its name."""


def shape_config(shape: str) -> dict[str, Any]:
    """The config.json of a FLAN-T5 named as in SHAPES. Raises BaseFormatError for other names."""
    if shape not in SHAPES:
        raise BaseFormatError(f"unknown shape {shape!r}; choose one of {', '.join(SHAPES)}")
    return {"architectures": ["T5ForConditionalGeneration"], "dropout_rate": 0.1, **SHAPES[shape].to_json()}


def write_random_base(folder: Path, shape: str, *, seed: int) -> None:
    """Write a base of a shape named in SHAPES into `folder`, which is made or must be empty.

    Matrices are int8 rows, 1 byte a value; norms and position tables fp32. Values follow T5's own initialisation,
    except that the output layer is drawn at d_model^-1/2, so that the loss starts near log(vocabulary) and not in the
    hundreds. The tokenizer makes one token of each word `w0`, `w1`…, split at white space. The same seed gives the
    same bytes. Memory: one tensor's codes and one chunk of `row_chunks`. No checkpoint of a trained model is read.

    Raises BaseFormatError for an unknown shape, a folder with something in it, or a full disk.
    """
    stored = shape_config(shape) | {STORAGE_KEY: ROWS_STORAGE}
    config, model = SHAPES[shape], folder / WEIGHTS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise BaseFormatError(f"{folder} is not empty; name a new folder for the random base")
        with model.open("wb") as file:
            write_tensors(file, list(_parts(config, seed)))
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(config.vocab_size)))
        (folder / "config.json").write_text(json.dumps(stored, indent=2) + "\n")  # last: without it this is no base
    except OSError as error:
        model.unlink(missing_ok=True)
        raise BaseFormatError(
            f"cannot write {folder} ({error.strerror}); free some space or name another place"
        ) from error


def _parts(config: T5Config, seed: int) -> Iterator[Part]:
    for name, shape in tensor_shapes(config).items():
        values = _Values(name, shape, _deviation(name, shape, config), seed)
        if is_matrix(name):
            yield Part(int8_places(name, shape), values.rows)
        else:
            yield Part((Place(name, "F32", shape),), values.floats)


def _deviation(name: str, shape: tuple[int, ...], config: T5Config) -> float:
    """Standard deviation of a tensor's values; 0.0 for a norm, whose values are all one."""
    if len(shape) == 1:
        return 0.0
    if name == "shared.weight":
        return 1.0
    if not is_matrix(name):
        return float(config.d_model**-0.5)
    attention = float(config.d_kv**-0.5) if name.endswith(".q.weight") else 1.0  # T5 divides no score by √d_kv
    return attention * float(shape[1] ** -0.5)


@dataclass(frozen=True)
class _Values:
    """One tensor: normal values of `deviation` around 0, or ones where that is 0. Drawn anew on every call."""

    name: str
    shape: tuple[int, ...]
    deviation: float
    seed: int

    def rows(self) -> tuple[Tensor, Tensor]:
        """int8 codes and the scale of each row."""
        generator = self._generator()
        codes = torch.empty(self.shape, dtype=torch.int8)
        for rows in row_chunks(*self.shape):
            drawn = torch.randn(codes[rows].shape, generator=generator)
            codes[rows] = drawn.mul_(LEVELS / SPREAD).round_().clamp_(-LEVELS, LEVELS).to(torch.int8)
        return codes, torch.full(self.shape[:1], self.deviation * SPREAD / LEVELS)

    def floats(self) -> tuple[Tensor]:
        if self.deviation == 0.0:
            return (torch.ones(self.shape),)
        return (torch.randn(self.shape, generator=self._generator()) * self.deviation,)

    def _generator(self) -> torch.Generator:
        """Seeded by seed and name, so that no tensor's values depend on how many were drawn before it."""
        digest = hashlib.sha256(f"{self.seed} {self.name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _tokenizer(vocabulary: int) -> dict[str, Any]:
    """tokenizer.json as the tokenizers library writes it: whole words, split at white space."""
    words = [f"w{i}" for i in range(vocabulary - len(SPECIAL_PIECES))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": piece, **flags} for i, piece in enumerate(SPECIAL_PIECES)],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {piece: i for i, piece in enumerate((*SPECIAL_PIECES, *words))},
            "unk_token": "<unk>",
        },
    }
