"""Trees of messages, as OpenAssistant publishes them: a prompt with replies, each with replies of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from edge_client.data.shapes.chat import turns_of
from edge_client.data.shapes.conversation import Turn, replies
from edge_client.data.shapes.shape import Fields, TextPair, Unusable, Use

PROMPT, REPLIES = "prompt", "replies"


class MessageTreeShape:
    """Each assistant's message is an example, whose source is the way to it from the prompt."""

    name, keeps_together = "tree of messages", True

    def matches(self, fields: Fields) -> bool:
        """Whether there is a prompt that has been replied to."""
        prompt = fields.get(PROMPT)
        return isinstance(prompt, dict) and isinstance(prompt.get(REPLIES), list)

    def use(self, fields: Fields) -> Use:
        """The column that everything is in."""
        return Use((fields.column(PROMPT),), (fields.column(PROMPT),))

    def pairs(self, fields: Fields) -> Iterable[TextPair | Unusable]:
        """The examples in the tree."""
        n_examples = 0
        for turns in _ways(fields.get(PROMPT)):
            *_, last = replies(turns)
            if isinstance(last, TextPair):
                n_examples += 1
                yield last
        if not n_examples:
            yield Unusable("no assistant's turn with something before it")


def _ways(prompt: object) -> Iterator[list[Turn]]:
    """The way from the prompt to each message with a reply in it, first ones first."""
    open_ways: list[tuple[object, list[Turn]]] = [(prompt, [])]
    while open_ways:
        message, before = open_ways.pop()
        if not isinstance(message, Mapping):
            continue
        turns = [*before, *turns_of(message)]
        if turns and turns[-1].reply and before:
            yield turns
        further = message.get(REPLIES)
        open_ways += [(reply, turns) for reply in reversed(further if isinstance(further, list) else [])]
