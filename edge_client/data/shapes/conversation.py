"""Conversations: each reply is an example, whose source is all that was said before it, a line for each turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from edge_client.data.shapes.shape import TextPair, Unusable

MAX_CONVERSATION_CHARS = 1 << 15
"""What is kept of a conversation before a reply, from its end. 32 Ki characters are some 8,000 tokens, more than any
run reads; without a limit a conversation of a thousand turns would take a thousand times its size."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of a conversation.

    Attributes:
        said: its lines in the sources of later replies, such as "user: Hello".
        reply: what the assistant said or called in it; "" where it is another's, or must not be learnt.
        is_empty: an assistant's turn with nothing in it.
    """

    said: str
    reply: str = ""
    is_empty: bool = False


def replies(turns: Iterable[Turn]) -> Iterator[TextPair | Unusable]:
    """An example for each reply that has something before it."""
    said: list[str] = []
    n_replies = 0
    for turn in turns:
        if turn.is_empty:
            yield Unusable("an assistant's turn has neither text nor call")
        elif turn.reply and said:
            n_replies += 1
            yield TextPair(_end_of(said), (turn.reply,))
        if turn.said:
            said.append(turn.said)
    if not n_replies:
        yield Unusable("no assistant's turn with something before it")


def _end_of(said: Sequence[str]) -> str:
    """The last turns that fit, each whole; of a single one that does not, its end."""
    n_chars, first = 0, len(said)
    while first and n_chars + len(said[first - 1]) + 1 <= MAX_CONVERSATION_CHARS:
        first -= 1
        n_chars += len(said[first]) + 1
    return "\n".join(said[first:]) or said[-1][-MAX_CONVERSATION_CHARS:]
