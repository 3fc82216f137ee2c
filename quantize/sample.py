"""Text to measure the loss on: pairs of source and target, tokenised with the base's own `tokenizer.json`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantize.errors import BaseFormatError
from quantize.forward import Ids, Texts

SAMPLE = Path(__file__).with_name("sample_text.jsonl")
"""Twelve short texts and summaries, written for this purpose."""

PREFIX = "summarize: "
"""Before every source, as FLAN-T5 and the builtin base know it from training."""

MAX_PAIRS = 64
"""Of a file, the first that are used; more would only take longer, as the report is no benchmark."""

MAX_SOURCE_TOKENS, MAX_TARGET_TOKENS = 512, 128
"""Longer texts are cut, as in training."""

MAX_LINE_BYTES = 1 << 20
"""Longest line that is read: ten times a long report."""

_HINT = 'each line needs two texts: {"source": "…", "target": "…"}'


def read_texts(file: Path, folder: Path, config: Mapping[str, Any]) -> Texts:
    """The first MAX_PAIRS pairs of a JSONL file in the tokens of the base in `folder`.

    Raises BaseFormatError for a line that is no pair, for a file without any, and where the base's tokenizer or the
    tokenizers library is missing.
    """
    encode = _encoder(folder, config)
    pairs = _pairs(file)
    sources = [encode(PREFIX + source, MAX_SOURCE_TOKENS) for source, _ in pairs]
    return Texts(sources, [encode(target, MAX_TARGET_TOKENS) for _, target in pairs])


def _pairs(file: Path) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    try:
        with file.open("rb") as lines:
            for number in range(1, MAX_PAIRS + 1):
                line = lines.readline(MAX_LINE_BYTES)
                if not line:
                    break
                pairs.append(_pair(line, f"{file}:{number}"))
    except OSError as error:
        raise BaseFormatError(f"cannot read {file} ({error.strerror}); give a JSONL file with --text") from error
    if not pairs:
        raise BaseFormatError(f"{file} is empty; {_HINT}")
    return pairs


def _pair(line: bytes, place: str) -> tuple[str, str]:
    try:
        found = json.loads(line)
        source, target = found["source"], found["target"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BaseFormatError(f"{place} is no example; {_HINT}") from error
    if not (isinstance(source, str) and isinstance(target, str) and source.strip() and target.strip()):
        raise BaseFormatError(f"{place} is no example; {_HINT}")
    return source, target


def _encoder(folder: Path, config: Mapping[str, Any]) -> Callable[[str, int], Ids]:
    """From text and the most tokens to ids, the last of which is eos."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # read at the first call; its threads gain nothing here
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise BaseFormatError("tokenizers is not installed; install braid[client]") from error
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:
        if not isinstance(error, (OSError, ValueError)) and type(error) is not Exception:  # the library's own
            raise
        raise BaseFormatError(f"cannot read {path} ({error}); copy the base's tokenizer there") from error
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= config["vocab_size"]:
        rows = config["vocab_size"]
        raise BaseFormatError(f"{path} has a token {largest}, the embedding {rows} rows; copy the base's own there")

    def encode(text: str, max_tokens: int) -> Ids:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        return (*ids[: max_tokens - 1], config.get("eos_token_id", 1))

    return encode
