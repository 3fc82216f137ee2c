"""Text to ids and back, with the base's own `tokenizer.json`; what is too long is cut here, and nowhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from braid_common.example import Example
from braid_common.text_form import LONGEST_PIECE_CHARS, TextForm
from edge_client.errors import BaseModelError, ConfigError

# Read by the library at its first call. Its threads would compete with torch's for a board's few cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Encoding, Tokenizer

LONGEST_WORD_CHARS = 256
"""How far back from a window's edge a space is looked for. Words are tokenised one by one, so that a window of whole
words has the tokens that the whole text has there; a longer run of characters is no word, and is cut anywhere."""

_SPACES = " \n\t"


@dataclass(frozen=True, slots=True)
class Pair:
    """A tokenised example: ids of the source, ended by eos, and of the target, ended by eos unless it was cut."""

    source: tuple[int, ...]
    target: tuple[int, ...]


class Tokeniser:
    """Reads `tokenizer.json` in `folder`; raises BaseModelError where there is none or it is damaged."""

    def __init__(self, folder: Path, eos_id: int, vocabulary: int) -> None:
        path = folder / "tokenizer.json"
        try:
            text = path.read_text(encoding="utf-8")
            json.loads(text)["model"]["type"]  # says better than the library what a file lacks that is cut or foreign
            self._tokenizer = Tokenizer.from_str(text)
        except Exception as error:
            if not isinstance(error, (OSError, ValueError, KeyError, TypeError)) and type(error) is not Exception:
                raise  # a bare Exception is the library's own
            raise BaseModelError(
                f"the base's tokenizer cannot be read from {path}: {error}", "fetch the base model again"
            ) from error
        self._eos_id = eos_id
        size = self._tokenizer.get_vocab_size()
        if size > vocabulary:
            raise BaseModelError(
                f"{path} knows {size} pieces, the base's embedding only {vocabulary}", "fetch the base model again"
            )

    def source(self, text: str, form: TextForm) -> tuple[int, ...]:
        """Token ids of a source text as the model reads it: prefix, text, eos.

        Of a source that is longer than the form allows, the part that the form names is left out: the text's end, its
        start or its middle, never any of the prefix. Raises ConfigError where the prefix leaves no room for text.
        """
        whole, limit = form.prefix + text, form.max_source_tokens - 1  # one is eos's
        first = self._first(whole, limit + 1)
        if len(first.ids) <= limit:
            return (*first.ids, self._eos_id)
        n_prefix = _tokens_of_prefix(first, form.prefix)
        room = limit - n_prefix
        if room < 1:
            raise ConfigError(
                f"the run's prefix takes {n_prefix} of a source's {form.max_source_tokens} tokens, and leaves no room "
                "for text",
                "raise train.max_source_tokens or shorten train.prefix in the server's run.toml",
            )
        n_last = {"end": 0, "start": room, "middle": room // 2}[form.truncate_source]
        return (*first.ids[: limit - n_last], *self._last(whole, n_last), self._eos_id)

    def target(self, text: str, max_tokens: int) -> tuple[int, ...]:
        """Token ids of a target text: all of it and eos where that is `max_tokens` at most, else its first ones alone.
        A model that is shown an eos behind half a sentence learns to stop there."""
        ids = self._first(text, max_tokens).ids
        return (*ids, self._eos_id) if len(ids) < max_tokens else tuple(ids[:max_tokens])

    def pair(self, example: Example, form: TextForm) -> Pair:
        """An example as ids, with its first target."""
        return Pair(self.source(example.source, form), self.target(example.target, form.max_target_tokens))

    def cuts(self, text: str, form: TextForm) -> bool:
        """Whether `source` would leave out a part of the text."""
        return self.count(form.prefix + text, form.max_source_tokens + 1) > form.max_source_tokens

    def count(self, text: str, most: int) -> int:
        """Tokens of a text, eos included; `most` where it has more."""
        return min(len(self._first(text, most).ids) + 1, most)

    def writable(self, text: str) -> str:
        """The text as a model with this tokenizer can write it: characters that it has no piece for are lost."""
        return self.decode(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()

    def _first(self, text: str, n_tokens: int) -> Encoding:
        """A text's encoding up to `n_tokens` at least; its whole encoding, where that is shorter.

        A megabyte of text would take seconds, to keep 512 tokens of it: so a window that holds as many tokens of the
        longest kind is tokenised first, and a larger one where white space or such left too few.
        """
        size = n_tokens * LONGEST_PIECE_CHARS
        while size < len(text):
            reach = max(0, size - LONGEST_WORD_CHARS)
            space = max(text.rfind(character, reach, size) for character in _SPACES)
            encoding = self._encode(text[: space if space > 0 else size])
            if len(encoding.ids) >= n_tokens:
                return encoding
            size *= 2
        return self._encode(text)

    def _last(self, text: str, n_tokens: int) -> tuple[int, ...]:
        """The last `n_tokens` ids of a text that has as many; the window is as in `_first`, from the other end."""
        if not n_tokens:
            return ()
        size = n_tokens * LONGEST_PIECE_CHARS
        while size < len(text):
            start = len(text) - size
            spaces = [text.find(character, start, start + LONGEST_WORD_CHARS) for character in _SPACES]
            found = [space for space in spaces if space >= 0]
            ids = self._encode(text[min(found, default=start) :]).ids
            if len(ids) >= n_tokens:
                return tuple(ids[-n_tokens:])
            size *= 2
        return tuple(self._encode(text).ids[-n_tokens:])

    def _encode(self, text: str) -> Encoding:
        return self._tokenizer.encode(text, add_special_tokens=False)


def _tokens_of_prefix(encoding: Encoding, prefix: str) -> int:
    """How many leading tokens hold a part of the prefix; white space at its end is in no token, or in the next one."""
    end = len(prefix.rstrip())
    return next((i for i, (start, _) in enumerate(encoding.offsets) if start >= end), len(encoding.ids))
