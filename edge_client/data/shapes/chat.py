"""Chat with tool calls, as the usual APIs write it: messages with roles, calls and their results.

A conversation becomes lines such as

    system: Be brief.
    user: How warm is it in Oslo?
    call: get_weather {"city": "Oslo"}
    result: {"celsius": 4}
    assistant: 4 degrees.

and each assistant's turn an example: what is before it is read, the call or the reply is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from edge_client.data.shapes.calls import RESULT, call_from_text, calls_in_text, calls_of, spell_json
from edge_client.data.shapes.conversation import Turn, replies
from edge_client.data.shapes.shape import Fields, TextPair, Unusable, Use

COLUMNS = ("messages", "conversations", "conversation", "chat", "turns", "chosen")
"""Columns that may hold a list of messages."""

ANSWERS = ("completion", "chosen")
"""Columns with messages that answer those in a column of prompts."""

ROLE_KEYS = ("role", "from", "speaker")
TEXT_KEYS = ("content", "value", "text", "utterance")

ASSISTANT = frozenset(("assistant", "gpt", "bot", "model", "chatgpt", "agent"))
USER = frozenset(("user", "human", "prompter", "customer"))
SYSTEM = frozenset(("system", "developer"))
TOOL = frozenset(("tool", "function", "observation", "tool_response", "function_response", "ipython"))
CALLER = frozenset(("function_call", "tool_call", "tool_calls"))
"""Roles by the names that APIs and data sets give them. A role of none of these speaks under its own name."""


class ChatShape:
    """A list of messages in a column."""

    name, keeps_together = "chat", True

    def matches(self, fields: Fields) -> bool:
        """Whether one of the columns holds messages."""
        return bool(self._columns(fields))

    def use(self, fields: Fields) -> Use:
        """The messages, and what the assistant was told beside them."""
        system = ["system"] if self._has_system(fields) else []
        columns = tuple(fields.column(column) for column in (*self._columns(fields), *system))
        return Use(columns, columns[:1] if len(columns) == 1 + len(system) else columns[1:2])

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """An example for each assistant's turn."""
        system = [Turn(f"system: {fields.get('system')}")] if self._has_system(fields) else []
        messages = [one for column in self._columns(fields) for one in _messages(fields.get(column)) or []]
        return replies([*system, *(turn for message in messages for turn in turns_of(message))])

    @staticmethod
    def _columns(fields: Fields) -> list[str]:
        """The column with the messages; or that with a prompt's and that with the answer's."""
        answer = next((column for column in ANSWERS if _messages(fields.get(column)) is not None), "")
        if answer and _messages(fields.get("prompt")) is not None:
            return ["prompt", answer]
        return [column for column in COLUMNS if _messages(fields.get(column)) is not None][:1]

    @staticmethod
    def _has_system(fields: Fields) -> bool:
        system = fields.get("system")
        return isinstance(system, str) and bool(system.strip())


def is_chat(value: object) -> bool:
    """Whether a value is a list of messages by itself, one at least."""
    return isinstance(value, list) and bool(_messages(value))


def turns_of(message: Mapping[str, object]) -> list[Turn]:
    """The turns that a message holds: one, but for results of tools that stand before a user's text."""
    role = str(_value(message, ROLE_KEYS) or "").strip().lower()
    content = _value(message, TEXT_KEYS)
    if role in CALLER:
        call = content if isinstance(content, str) else spell_json(content)
        return [_reply("", [spelt] if (spelt := call_from_text(call)) else [call], True)]
    if role in ASSISTANT:
        text, calls = calls_in_text(_text(content))
        calls += calls_of(message) + _parts_that_call(content)
        return [_reply(text, calls, message.get("weight") != 0)]
    if role in TOOL:
        return [Turn(RESULT + _text(content))]
    results = [Turn(RESULT + _text(part.get("content"))) for part in _parts(content, "tool_result")]
    speaker = "user" if role in USER else "system" if role in SYSTEM else role or "user"
    text = _text(content)
    return [*results, *([Turn(f"{speaker}: {text}")] if text else [])]


def _reply(text: str, calls: list[str], is_learnt: bool) -> Turn:
    """An assistant's turn: its words, then its calls, a line each."""
    whole = "\n".join([*([text] if text else []), *calls])
    said = "\n".join([*([f"assistant: {text}"] if text else []), *calls])
    return Turn(said, whole if is_learnt else "", is_empty=not whole)


def _messages(value: object) -> list[Mapping[str, object]] | None:
    """The messages in a value, which may be JSON in a string; None where it is something else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, (list, tuple)):
        return None
    is_chat = all(isinstance(one, dict) and any(key in one for key in ROLE_KEYS) for one in value)
    return list(value) if is_chat else None


def _value(message: Mapping[str, object], keys: Iterable[str]) -> object:
    return next((message[key] for key in keys if message.get(key) is not None), None)


def _text(content: object) -> str:
    """The words of a message: of a list of parts those that are text; of anything else JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content.strip()
    if isinstance(content, list) and all(isinstance(part, (str, dict)) for part in content):
        return "\n".join(text for part in content if (text := _text_of_part(part)))
    return spell_json(content)


def _text_of_part(part: object) -> str:
    """A part's text; of an image or another thing that is no text its kind in brackets, to show that it was there."""
    if isinstance(part, str):
        return part.strip()
    assert isinstance(part, dict)
    kind = str(part.get("type", ""))
    if isinstance(part.get("text"), str):
        return str(part["text"]).strip()
    if not kind:
        return spell_json(part)
    return "" if kind in ("tool_use", "tool_result") else f"[{kind}]"


def _parts(content: object, kind: str) -> list[Mapping[str, object]]:
    parts = content if isinstance(content, list) else []
    return [part for part in parts if isinstance(part, dict) and part.get("type") == kind]


def _parts_that_call(content: object) -> list[str]:
    return calls_of({"tool_calls": _parts(content, "tool_use")})
