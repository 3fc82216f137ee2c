"""The builtin base's training in miniature: a corpus of one sentence, and a model whose layers are tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

import builtin_base
from builtin_base.training.text import rows
from builtin_base.training.tokenizer import TOKENIZER_FILES

DOCSTRING = """Do it.

Args:
    size: How large
        it is.
    *rest (int): More.

Returns:
    The sum.

Raises:
    KeyError: If absent."""
"""In Google's style, with all of its parts."""

SENTENCE = (
    "the committee decided after two days that every harbour should publish its tide tables before the first of may"
)
TINY = {"d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 40, "num_layers": 1, "num_decoder_layers": 1}


def text_of_one_sentence(tokenizer: Tokenizer) -> rows.Text:
    """A side of the corpus: one stream, and pairs of a beginning with a shorter one."""
    ids = np.array(tokenizer.encode(" ".join([SENTENCE] * 40)).ids, dtype=np.uint16)
    pairs = rows.sort(
        [(tokenizer.encode(SENTENCE[: 20 + i]).ids, tokenizer.encode(SENTENCE[:15]).ids) for i in range(40)]
    )
    return rows.Text({"docstring": ids}, {("summary", "docstring"): pairs})


def write_run_folder(folder: Path, tokenizer: Tokenizer) -> None:
    """Write what `prepare` makes: the tokenizer, and the tokenised text with its report."""
    (folder / "text").mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(builtin_base.folder() / name, folder / name)
    for side in ("train", "held_out"):
        rows.write(folder / "text" / f"{side}.safetensors", text_of_one_sentence(tokenizer))
    (folder / "text" / "sentences.json").write_text(json.dumps([SENTENCE]))
    report = {
        "documents": {"docstring": 40},
        "document_bytes": {"docstring": 40 * len(SENTENCE)},
        "pairs": {"docstring": 40, "title:page": 3, "answer:dolly": 2},
        "packages": ["tides"],
        "excluded_libraries": ["numpy"],
    }
    (folder / "text" / "corpus.json").write_text(json.dumps(report))
