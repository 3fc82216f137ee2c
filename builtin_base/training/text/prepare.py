"""Prepare a run's folder: a gathered corpus, a tokenizer, and the corpus tokenised."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

import builtin_base
from builtin_base.docstrings import hash_share
from builtin_base.training.text.documents import REPORT, Harvest, read_corpus
from builtin_base.training.text.tokenised import write_text
from builtin_base.training.tokenizer import TOKENIZER_FILES, train_tokenizer, write_config

TOKENIZER_CHARS = 6_000_000
"""Text that a new tokenizer is trained on, in characters: a minute of one core, and ten times as much takes ten."""


def prepare(folder: Path, corpus_folder: Path, *, new_tokenizer: bool) -> None:
    """Tokenise a gathered corpus into ``FOLDER/text``, in place of what is there once all is written.

    Args:
        folder: of the run; its tokenizer is kept where it has one.
        corpus_folder: what `documents.write_corpus` wrote.
        new_tokenizer: trains a tokenizer on the corpus, instead of taking the shipped base's.

    Raises:
        FileExistsError: if a new tokenizer is asked for where there is one, whose weights would become worthless.
    """
    corpus = read_corpus(corpus_folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    if new_tokenizer:
        if path.exists():
            raise FileExistsError(f"{path} is there already: a new tokenizer needs a new folder")
        train_tokenizer(_sample(corpus)).save(str(path))
        write_config(folder)
    elif not path.exists():
        for name in TOKENIZER_FILES:
            shutil.copyfile(builtin_base.folder() / name, folder / name)
    fresh = folder / "text.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    write_text(fresh, corpus, Tokenizer.from_file(str(path)))
    shutil.copyfile(corpus_folder / REPORT, fresh / REPORT)
    shutil.rmtree(folder / "text", ignore_errors=True)
    fresh.rename(folder / "text")


def _sample(corpus: Harvest) -> Iterator[str]:
    """Yield an even sample of the documents."""
    total = sum(len(document.text) for document in corpus.documents)
    share = min(1.0, TOKENIZER_CHARS / max(total, 1))
    for document in corpus.documents:
        if hash_share("tokenizer" + document.text) < share:
            yield document.text
