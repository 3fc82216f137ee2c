"""Messages in rows of their own, which name the message that they reply to: joined to trees before anything is read.

So the flat files of OpenAssistant are written, and the support threads that companies publish.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_client.data.formats.record import Item, Record, Skipped
from edge_client.data.shapes.message_tree import PROMPT, REPLIES
from edge_client.data.shapes.shape import Fields, NotTextError
from edge_client.data.shapes.values import text_of

MAX_MESSAGES = 400_000
"""Messages that are kept to be joined. At 0.5 kB each this is 200 MB; replies may stand far from what they reply to."""


@dataclass(frozen=True, slots=True)
class ThreadColumns:
    """The columns of messages in rows.

    Attributes:
        id, parent: a message, and the one that it replies to.
        text: what it says.
        role: who says it; its values are as in a chat, or a truth value that is told by `user_if`.
        user_if: the value of `role`, in small letters, for messages of users; "" where it holds roles.
    """

    id: str
    parent: str
    text: str
    role: str
    user_if: str = ""

    @property
    def all(self) -> tuple[str, ...]:
        """Every column that is needed."""
        return (self.id, self.parent, self.text, self.role)


KNOWN = (
    ThreadColumns("message_id", "parent_id", "text", "role"),  # OpenAssistant
    ThreadColumns(
        "tweet_id", "in_response_to_tweet_id", "text", "inbound", user_if="true"
    ),  # customer support on Twitter
)


def find_thread_columns(fields: Fields) -> ThreadColumns | None:
    """The columns of a record that is one message of a thread; None for any other record."""
    return next((columns for columns in KNOWN if all(column in fields for column in columns.all)), None)


def join_threads(items: Iterator[Item], columns: ThreadColumns) -> Iterator[Item]:
    """A record for each thread that begins in these rows: its first message as a prompt with replies, and theirs.

    Rows beyond MAX_MESSAGES are not read, which is said.
    """
    messages: dict[str, dict[str, object]] = {}
    places: dict[str, str] = {}
    parents: dict[str, str] = {}
    for item in items:
        if isinstance(item, Skipped) or not isinstance(item.value, dict):
            yield item if isinstance(item, Skipped) else Skipped(item.place, "not an object with named columns")
            continue
        if len(messages) >= MAX_MESSAGES:
            yield Skipped(item.place, f"more than {MAX_MESSAGES} messages: the rows from here on are left out")
            break
        try:
            key, parent, message = _message(Fields(item.value), columns)
        except NotTextError as error:
            yield Skipped(item.place, f"a message's column is {error}")
            continue
        messages[key], parents[key], places[key] = message, parent, item.place
    for key, message in messages.items():
        if (reply_to := messages.get(parents[key])) is not None and reply_to is not message:
            siblings = reply_to[REPLIES]
            assert isinstance(siblings, list)
            siblings.append(message)
    for key, message in messages.items():
        if parents[key] not in messages:
            yield Record(places[key], {PROMPT: message})


def _message(fields: Fields, columns: ThreadColumns) -> tuple[str, str, dict[str, object]]:
    role = text_of(fields.get(columns.role))
    if columns.user_if:
        role = "user" if role.lower() == columns.user_if else "assistant"
    key, parent = (_id(fields.get(column)) for column in (columns.id, columns.parent))
    return key, parent, {"role": role, "text": text_of(fields.get(columns.text)), REPLIES: []}


def _id(value: object) -> str:
    """An id's text; of one that a table of numbers has made fractional, the whole number."""
    return text_of(value).removesuffix(".0")
