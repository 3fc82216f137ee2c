"""A base's tokenizer.json, read as far as a server can without the tokenizers library: which ids it gives to text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from braid_common.base.files import TOKENIZER_FILE, BaseFilesError, read_small
from braid_common.base.t5_config import T5Config

MAX_TOKENIZER_BYTES = 64 << 20
"""Largest tokenizer.json that is read. T5's has 2.4 MB, one of 256,000 pieces 34 MB."""

_SENTENCEPIECE_FILE = "spiece.model"

TO_TOKENIZER_JSON = (
    "python -c \"from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('{0}').save_pretrained('{0}')\""
)
"""What makes tokenizer.json of spiece.model, wherever transformers, sentencepiece and protobuf are installed."""


class _AddedToken(msgspec.Struct):
    """A piece that is found in the text before the model looks at it."""

    id: int
    content: str


class _Unigram(msgspec.Struct, tag_field="type", tag="Unigram"):
    """T5's own kind: the pieces in the order of their ids, each with its score."""

    vocab: list[tuple[str, float]]

    def ids(self) -> Iterable[int]:
        return range(len(self.vocab))


class _Table(msgspec.Struct, tag_field="type"):
    """A kind that names the id of each piece."""

    vocab: dict[str, int]

    def ids(self) -> Iterable[int]:
        return self.vocab.values()


class _Bpe(_Table, tag="BPE"):
    """Byte-pair encoding."""


class _WordLevel(_Table, tag="WordLevel"):
    """Whole words."""


class _WordPiece(_Table, tag="WordPiece"):
    """BERT's kind."""


class _Tokenizer(msgspec.Struct):
    """The parts of tokenizer.json that give out ids."""

    model: _Unigram | _Bpe | _WordLevel | _WordPiece
    added_tokens: list[_AddedToken] = []


def check_tokenizer(folder: Path, config: T5Config) -> None:
    """Raise BaseFilesError unless tokenizer.json is there, can be read, and fits the embedding.

    The embedding may have more rows than there are pieces (T5's has 32,128 for 32,100), never fewer; the ids that end
    a text and pad it must be pieces.
    """
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise _without_tokenizer(folder)
    try:
        tokenizer = msgspec.json.decode(read_small(path, MAX_TOKENIZER_BYTES), type=_Tokenizer)
    except BaseFilesError:
        raise
    except (ValueError, RecursionError) as error:  # msgspec's errors, and UnicodeDecodeError
        raise BaseFilesError(f"{path} cannot be read ({error}): download the model again") from error
    ids = {*tokenizer.model.ids(), *(token.id for token in tokenizer.added_tokens)}
    if not ids or min(ids) < 0:
        raise BaseFilesError(f"{path} holds no pieces, or one without an id: download the model again")
    if (n_ids := max(ids) + 1) > config.vocab_size:
        raise BaseFilesError(
            f"{path} knows {n_ids} pieces, the base's embedding only {config.vocab_size} (vocab_size in config.json): "
            "the two are not of the same model, download it again"
        )
    for key, piece in (("eos_token_id", config.eos_id), ("pad_token_id", config.pad_id)):
        if piece not in ids:
            raise BaseFilesError(
                f"{path} has no piece {piece}, which config.json names as {key}: the two are not of the same model, "
                "download it again"
            )


def _without_tokenizer(folder: Path) -> BaseFilesError:
    if (folder / _SENTENCEPIECE_FILE).exists():
        return BaseFilesError(
            f"{folder} has {_SENTENCEPIECE_FILE} but no {TOKENIZER_FILE}: make it with transformers, "
            f"sentencepiece and protobuf: {TO_TOKENIZER_JSON.format(folder)}"
        )
    return BaseFilesError(f"{folder} has no {TOKENIZER_FILE}: download it from where the model came from")
