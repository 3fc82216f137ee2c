"""Random values that programmatic tasks are made of: words, numbers, identifiers, sentences, names of functions.

A value should be new to the model most of the time, since what is to be learnt is copying it from the source.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

_HEX = "0123456789abcdef"
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_VERBS = (
    *("get", "find", "add", "set", "list", "make", "send", "open", "close", "book", "cancel", "update", "remove"),
    *("create", "search", "check", "fetch", "start", "stop", "move", "assign", "read", "show", "reserve", "order"),
)


@dataclass(frozen=True, slots=True)
class Values:
    """A source of random values.

    Attributes:
        random: where chance comes from.
        words: words to draw from.
        sentences: sentences of running text to draw from, as noise around what matters.
    """

    random: random.Random
    words: Sequence[str]
    sentences: Sequence[str]

    def word(self) -> str:
        """Draw a word; one in eight is made up."""
        if self.random.random() < 0.125:
            return self.made_up()
        return self.random.choice(self.words)

    def made_up(self) -> str:
        """Make a pronounceable word that nobody has seen."""
        return "".join(
            self.random.choice(_CONSONANTS) + self.random.choice(_VOWELS) for _ in range(self.random.randint(2, 4))
        )

    def name(self) -> str:
        """Draw a word with a capital."""
        return self.word().capitalize()

    def digits(self, at_most: int = 6) -> str:
        """Draw a string of digits."""
        return "".join(self.random.choice("0123456789") for _ in range(self.random.randint(1, at_most)))

    def hexadecimal(self) -> str:
        """Draw a piece of a hash."""
        return "".join(self.random.choice(_HEX) for _ in range(self.random.randint(4, 12)))

    def slug(self) -> str:
        """Draw an identifier such as ``oat-milk-2831``."""
        words = [self.word().lower() for _ in range(self.random.randint(1, 3))]
        joint = self.random.choice("--_")
        return joint.join([*words, self.digits()] if self.random.random() < 0.7 else words)

    def price(self) -> str:
        """Draw a number with a decimal point, some with a unit."""
        return f"{self.random.choice(['', '', '$', '-'])}{self.random.randint(0, 999)}.{self.digits(2)}"

    def moment(self) -> str:
        """Draw a time of day or a date."""
        if self.random.random() < 0.5:
            return f"{self.random.randint(0, 23):02d}:{self.random.randint(0, 59):02d}"
        return f"{self.random.randint(1950, 2040)}-{self.random.randint(1, 12):02d}-{self.random.randint(1, 28):02d}"

    def path(self) -> str:
        """Draw a file path or an address of mail."""
        words = [self.word().lower() for _ in range(self.random.randint(2, 3))]
        if self.random.random() < 0.3:
            return f"{words[0]}@{words[1]}.{self.random.choice(['org', 'com', 'net'])}"
        return "/" + "/".join(words) + self.random.choice(["", ".txt", ".py", ".json"])

    def phrase(self, least: int = 2, most: int = 4) -> str:
        """Draw some words, all small, all with capitals, or as they come."""
        words = [self.word() for _ in range(self.random.randint(least, most))]
        style = self.random.randrange(3)
        return " ".join(w.lower() if style == 0 else w.capitalize() if style == 1 else w for w in words)

    def value(self) -> str:
        """Draw what an argument or a field may hold, on one line without quotes."""
        makers: Sequence[Callable[[], str]] = (
            *(self.word, self.name, self.digits, self.digits, self.slug, self.slug, self.phrase, self.phrase),
            *(self.hexadecimal, self.price, self.moment, self.path),
        )
        return self.random.choice(makers)()

    def key(self) -> str:
        """Draw a field's name."""
        word = self.word().lower()
        return word + self.random.choice(["", "", "", "_id", "_name", f"_{self.word().lower()}"])

    def function(self) -> str:
        """Draw a function's name."""
        return f"{self.random.choice(_VERBS)}_{self.word().lower()}" + self.random.choice(["", "", "_items", "s"])

    def record(self, least: int, most: int) -> dict[str, str]:
        """Draw fields with values; the names differ."""
        n_fields = self.random.randint(least, most)
        found: dict[str, str] = {}
        while len(found) < n_fields:
            found[self.key()] = self.value()
        return found

    def sentence(self) -> str:
        """Draw a sentence: from running text, or random words."""
        if self.sentences and self.random.random() < 0.7:
            return self.random.choice(self.sentences)
        return f"{self.phrase(3, 9)}{self.random.choice(['.', '?', '!', ''])}"

    def distinct(self, draw: Callable[[], str], n: int) -> list[str]:
        """Draw `n` values that differ."""
        found: dict[str, None] = {}
        while len(found) < n:
            found[draw()] = None
        return list(found)


def vocabulary_words(tokenizer: Tokenizer) -> list[str]:
    """List the pieces of a vocabulary that are whole words, in a fixed order."""
    pieces = sorted(piece.lstrip("▁") for piece in tokenizer.get_vocab() if piece.startswith("▁"))
    return list(dict.fromkeys(piece for piece in pieces if piece.isascii() and piece.isalpha() and len(piece) > 2))
