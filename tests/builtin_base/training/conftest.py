"""The shipped tokenizer, and a corpus of one sentence from which any batch can be drawn."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

import builtin_base
from builtin_base.training import batches
from builtin_base.training.programmatic import exercises
from builtin_base.training.programmatic.values import vocabulary_words
from tests.fakes.base_training import SENTENCE, text_of_one_sentence


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(builtin_base.folder() / "tokenizer.json"))


@pytest.fixture(scope="session")
def sources(tokenizer: Tokenizer) -> batches.Sources:
    text = text_of_one_sentence(tokenizer)
    drawer = exercises.Drawer(tokenizer, vocabulary_words(tokenizer), [SENTENCE], 256, seed=1)
    return batches.Sources(text, text, drawer)
