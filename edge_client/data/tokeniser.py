"""Text to ids and back, with the base's own `tokenizer.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from braid_common.example import Example
from braid_common.text_form import TextForm
from edge_client.errors import BaseModelError

# Read by the library at its first call. Its threads would compete with torch's for a board's few cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer

MAX_CHARS_PER_TOKEN = 16
"""Text beyond max_tokens times this is cut before it is tokenised: a megabyte of text would take seconds, to keep 512
tokens of it. English has 4 to 5 characters per token."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tokenised example: ids of source and target, each ended by eos."""

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

    def encode(self, text: str, max_tokens: int) -> tuple[int, ...]:
        """Token ids of a text, `max_tokens` of them at most, the last of which is eos."""
        encoding = self._tokenizer.encode(text[: max_tokens * MAX_CHARS_PER_TOKEN], add_special_tokens=False)
        return (*encoding.ids[: max_tokens - 1], self._eos_id)

    def source(self, text: str, form: TextForm) -> tuple[int, ...]:
        """Token ids of a source text as the model reads it: prefix, text, eos."""
        return self.encode(form.prefix + text, form.max_source_tokens)

    def pair(self, example: Example, form: TextForm) -> Pair:
        """An example as ids."""
        return Pair(self.source(example.source, form), self.encode(example.target, form.max_target_tokens))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text.strip()
