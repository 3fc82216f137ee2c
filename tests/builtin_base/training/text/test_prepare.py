"""A gathered corpus becomes a run's text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from builtin_base.training.text import rows
from builtin_base.training.text.documents import Document, Harvest, Pair, read_corpus, write_corpus
from builtin_base.training.text.prepare import prepare
from tests.fakes.base_training import SENTENCE

CORPUS = Harvest(
    [Document("page", "tides", f"{SENTENCE} in {year}.") for year in range(1900, 2300)],
    [Pair("title:page", "tides", f"title: {SENTENCE} {year}", f"the year {year}") for year in range(1900, 2300)],
)


def test_prepared_text_is_the_corpus(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Every document is on one of the two sides; pairs have the prefix that boards give, and their task's name."""
    write_corpus(tmp_path / "corpus", CORPUS, {"documents": {"page": 400}})
    assert read_corpus(tmp_path / "corpus") == CORPUS

    prepare(tmp_path / "run", tmp_path / "corpus", new_tokenizer=False)

    sides = [rows.read(tmp_path / "run" / "text" / f"{side}.safetensors") for side in ("train", "held_out")]
    train, held_out = (side.pairs["title", "page"] for side in sides)
    assert len(train) + len(held_out) == 400 and 0 < len(held_out) < 20
    assert tokenizer.decode(list(train.sources[0])).startswith("summarize: title: the committee")
    written = "".join(tokenizer.decode(list(side.streams["page"])) for side in sides)
    assert written.count("tide tables") == 400


def test_a_tokenizer_is_not_replaced_under_its_weights(tmp_path: Path) -> None:
    """Weights know the pieces of one tokenizer; a new one wants a new folder."""
    write_corpus(tmp_path / "corpus", CORPUS, {})
    prepare(tmp_path / "run", tmp_path / "corpus", new_tokenizer=False)

    with pytest.raises(FileExistsError, match="new folder"):
        prepare(tmp_path / "run", tmp_path / "corpus", new_tokenizer=True)
