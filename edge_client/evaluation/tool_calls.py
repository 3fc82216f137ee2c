"""Tool calls in texts: `call: NAME {json}`, one or several, read and compared as calls and not as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

MAX_DEPTH = 64
"""Levels of nested arguments that are compared as values; deeper ones are compared as text. No tool takes so many, and
what a model writes must not exhaust Python's stack."""

_HEAD = re.compile(r"call:\s*(\S+)\s*")
_AFTER_WORDS = re.compile(r"(?:^|\s)(?=call:\s)")
_LINE = re.compile(r"^call:\s*\S", re.MULTILINE)
_NEXT = re.compile(r"\s+(?=call:\s)")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of one tool.

    Attributes:
        name: the tool's.
        arguments: a value that equals another call's where both are the same JSON value: objects without regard to the
            order of their keys, 1 and 1.0 alike, true not 1. Where they are no JSON, their text.
    """

    name: str
    arguments: object


def parse_calls(text: str, *, after_words: bool = False, lacks_brackets: bool = False) -> tuple[Call, ...]:
    """The calls that a text consists of; none where it is an ordinary reply.

    `after_words` passes over words before the first call. `lacks_brackets` reads arguments whose outer curly brackets
    are missing as if they were there.
    """
    text = text.strip()
    if after_words and (first := _AFTER_WORDS.search(text)):
        text = text[first.end() :]
    return tuple(_calls(text, lacks_brackets))


def _calls(text: str, lacks_brackets: bool) -> Iterator[Call]:
    while head := _HEAD.match(text):
        arguments, text = _arguments(text[head.end() :], lacks_brackets)
        yield Call(head[1], arguments)


def _arguments(text: str, lacks_brackets: bool) -> tuple[object, str]:
    """The arguments that `text` begins with, and what comes after them."""
    try:
        value, end = _DECODER.raw_decode(text)
        rest = text[end:].strip()
        if not rest or _HEAD.match(rest):
            return _comparable(value), rest
    except (ValueError, RecursionError):
        pass
    own, *others = _NEXT.split(text, maxsplit=1)
    rest = others[0] if others else ""
    if lacks_brackets:
        try:
            return _comparable(_DECODER.decode(f"{{{own}}}")), rest
        except (ValueError, RecursionError):
            pass
    return ("text", " ".join(own.split())), rest


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _comparable(value: object, depth: int = 0) -> object:
    """A JSON value as tuples that are equal just where the values are. Raises ValueError below MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise ValueError("nested too deeply")
    if isinstance(value, dict):
        return "object", tuple((key, _comparable(value[key], depth + 1)) for key in sorted(value))
    if isinstance(value, list):
        return "list", tuple(_comparable(item, depth + 1) for item in value)
    if isinstance(value, bool):  # Python holds True equal to 1; JSON does not
        return "boolean", value
    return "value", value


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of a text where calls were right.

    Attributes:
        name: it calls the same tools in the same order.
        arguments: it calls them with the same arguments as well.
    """

    name: bool
    arguments: bool


def judge_calls(targets: Sequence[str], writable_targets: Sequence[str], written: str) -> Verdict | None:
    """Compare a written text with the calls that are right.

    A target is a call where one of its lines begins with `call: `. Where words stand before that line the written text
    may have some too, on the same line even, for T5's tokenizer knows no line ends; they are not compared.

    Args:
        targets: right answers; where one is no call, it is passed over, unless it is the first.
        writable_targets: the same as the tokenizer can write them; what equals one of these is right too.
        written: the model's text, which may be anything.

    Returns:
        The best verdict over the targets; None where the first target is no call.
    """
    if not _is_call(targets[0]):
        return None
    verdicts = [
        verdict
        for target, writable in zip(targets, writable_targets, strict=True)
        if _is_call(target)
        for verdict in _verdicts(target, writable, written)
    ]
    return Verdict(any(verdict.name for verdict in verdicts), any(verdict.arguments for verdict in verdicts))


def _is_call(target: str) -> bool:
    return _LINE.search(target.strip()) is not None


def _verdicts(target: str, writable: str, written: str) -> Iterator[Verdict]:
    start = _LINE.search(target.strip())
    assert start is not None
    parse = partial(parse_calls, after_words=start.start() > 0)
    yield _compare(parse_calls(target.strip()[start.start() :]), parse(written))
    if " ".join(writable.split()) != " ".join(target.split()):  # the tokenizer cannot write it all
        parse = partial(parse, lacks_brackets=True)
        yield _compare(parse(writable), parse(written))


def _compare(right: Sequence[Call], written: Sequence[Call]) -> Verdict:
    has_names = bool(right) and [call.name for call in right] == [call.name for call in written]
    return Verdict(has_names, has_names and list(right) == list(written))
