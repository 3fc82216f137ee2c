"""Transcripts: a whole conversation in one text, its turns marked as in "USER: …" or "### Assistant: …"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edge_client.data.shapes.calls import RESULT, calls_in_text
from edge_client.data.shapes.conversation import Turn, replies
from edge_client.data.shapes.shape import Fields, TextPair, Unusable, Use

COLUMNS = ("chat", "conversation", "transcript", "text", "sample", "chosen")
"""Columns that may hold a transcript: glaive's function calling, Guanaco, preferences over dialogues."""

_MARK = re.compile(
    r"(?:^|\n)[ \t]*(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE|Human|User|Assistant|System):"
    r"|###[ \t]*(Human|User|Assistant|System):"
)
_END = "<|endoftext|>"


class TranscriptShape:
    """Each assistant's turn in a text is an example, as in a chat."""

    name, keeps_together = "transcript", True

    def matches(self, fields: Fields) -> bool:
        """Whether a column holds turns of a user and of an assistant."""
        return self._column(fields) != ""

    def use(self, fields: Fields) -> Use:
        """The transcript, and what the assistant was told beside it."""
        columns = (self._column(fields), *(["system"] if "system" in fields else []))
        return Use(tuple(fields.column(column) for column in columns), (fields.column(columns[0]),))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """An example for each assistant's turn."""
        system = str(fields.get("system") or "").strip()
        told = [Turn("system: " + system.removeprefix("SYSTEM:").strip())] if system else []
        return replies([*told, *_turns(str(fields.get(self._column(fields))))])

    @staticmethod
    def _column(fields: Fields) -> str:
        for column in COLUMNS:
            value = fields.get(column)
            if isinstance(value, str):
                speakers = {(first or second).lower() for first, second in _MARK.findall(value)}
                if "assistant" in speakers and speakers & {"user", "human"}:
                    return column
        return ""


def _turns(text: str) -> Iterator[Turn]:
    marks = list(_MARK.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        speaker = (mark[1] or mark[2]).lower()
        words = text[mark.end() : end].replace(_END, "\n").strip()
        if speaker == "assistant":
            yield _assistants(text[mark.end() : end])
        elif speaker == "function response":
            yield Turn(RESULT + words)
        elif words:
            yield Turn(f"{'system' if speaker == 'system' else 'user'}: {words}")


def _assistants(text: str) -> Turn:
    words, calls = calls_in_text(text)
    words = words.replace(_END, "\n").strip()
    reply = "\n".join([*([words] if words else []), *calls])
    said = "\n".join([*([f"assistant: {words}"] if words else []), *calls])
    return Turn(said, reply, is_empty=not reply)
