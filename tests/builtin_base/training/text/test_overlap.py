"""Texts that tests ask are found in the corpus, and so are texts that repeat one another."""

from __future__ import annotations

from builtin_base.training.text.overlap import Reserved, Seen
from tests.fakes.base_training import SENTENCE


def test_tested_paragraphs_go() -> None:
    """A paragraph that quotes a tested text is dropped, its neighbours stay, and punctuation does not hide it."""
    tested = Reserved([SENTENCE])
    text = f"{'Something else entirely is said here. ' * 4}\n\nThey wrote: {SENTENCE.upper().replace(' ', ', ')}."
    assert tested.without(text).strip() == text.partition("\n\n")[0].strip()
    assert tested.without(SENTENCE) == "" and tested.share("quite another text of more than eight words in all") == 0


def test_nearly_the_same_is_seen() -> None:
    """A text with one word changed in sixty is a repetition; another text is not."""
    words = [f"word{i}" for i in range(60)]
    seen = Seen()
    assert not seen.is_repeated(" ".join(words))
    assert seen.is_repeated(" ".join([*words[:58], "changed", words[59]]))
    assert not seen.is_repeated(" ".join(reversed(words)))
