"""Terminals of any encoding: what they cannot show is written in other signs, and one that has gone ends a command.

Standard output and error are prepared once, where a program begins; all that is written to them later is safe. That
holds for names which others chose, and for the signs of our own sentences.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

STAND_INS = MappingProxyType(
    {"→": "->", "–": "-", "−": "-", "—": "--", "…": "...", "×": "x", "·": "|", "µ": "u", "█": "#", "░": ".", "≥": ">="}
    | {"≤": "<=", "‘": "'", "’": "'", "“": "'", "”": "'", "„": "'", "⚡": "*", "⏻": "*", "\u00a0": " ", "\u202f": " "}
)
"""Signs that our sentences use, for encodings that lack them. No quotes and no backslashes: JSON stays JSON."""

READER_GONE = 128 + 13
"""Exit status where nobody reads the output any more: what a shell shows for SIGPIPE."""

_HANDLER = "braid-stand-ins"

_ASCII = "braid-ascii"
"""ASCII under another name: click takes a terminal whose encoding is called ascii for one that means UTF-8."""


def run_on_any_terminal(command: Callable[[], int]) -> int:
    """The command's exit status; READER_GONE where the output's reader left before all was written."""
    use_any_terminal()
    streams = sys.stdout, sys.stderr
    status = READER_GONE
    try:
        status = command()
    except BrokenPipeError:
        pass
    except SystemExit as end:  # click ends so where a pipe is broken, and puts streams of its own in place
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    sys.stdout, sys.stderr = streams
    all_written = [_is_flushed(stream) for stream in streams]
    return status if all(all_written) else READER_GONE


def use_any_terminal() -> None:
    """Prepare standard output and error, and input, of which what cannot be read is replaced."""
    codecs.register_error(_HANDLER, _stand_in)
    codecs.register(_find_ascii)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run
        elif isinstance(stream, io.TextIOWrapper):
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else None, errors=_HANDLER)
    if isinstance(sys.stdin, io.TextIOWrapper):
        is_ascii = codecs.lookup(sys.stdin.encoding).name == "ascii"
        sys.stdin.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")


def moves_cursor(stream: TextIO) -> bool:
    """Whether a line on this stream can be written over: it is a terminal, and TERM does not call it dumb."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def give_up(stream: TextIO) -> None:
    """Let what was and will be written to a stream go nowhere: its reader has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def typed(text: str) -> str:
    """The text that a person typed; where Python could not read it by the locale, it was UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _stand_in(error: UnicodeError) -> tuple[str, int]:
    """The error handler: STAND_INS, or \\uXXXX as JSON writes it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(STAND_INS.get(sign) or _escaped(sign) for sign in missing), error.end


def _escaped(sign: str) -> str:
    units = sign.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode,
        ascii_.decode,
        streamreader=ascii_.streamreader,
        streamwriter=ascii_.streamwriter,
        incrementalencoder=ascii_.incrementalencoder,
        incrementaldecoder=ascii_.incrementaldecoder,
        name=_ASCII,
    )


def _is_flushed(stream: TextIO) -> bool:
    """Whether all was written. What nobody reads is given up, or the interpreter would complain at its end."""
    try:
        stream.flush()
    except BrokenPipeError:
        give_up(stream)
        return False
    return True
