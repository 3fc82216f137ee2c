"""Bytes as messages of the protocol: a message of the type asked for, or WireError; and what reads messages after that.

An input's first line names the type, the rest is the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from fuzz.contract import Judge, Target, require
from fuzz.mutations import behind_first_line, mutate_msgpack
from fuzz.targets import small_run
from wire import messages, run
from wire.checks import check_adapter, check_profile, check_run, check_update
from wire.codec import decode, encode
from wire.errors import WireError
from wire.fields import Message
from wire.limits import MAX_ERROR_CHARS
from wire.tensors import pack, unpack
from wire.text_lengths import TextLengths

KINDS: dict[bytes, type[Message]] = {
    name.encode(): kind
    for name, kind in sorted({**vars(run), **vars(messages)}.items())
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
}
"""Every type of the protocol by its name."""


def check(data: bytes) -> str:
    """Decode, encode again, and use the message as its readers do."""
    name, _, body = data.partition(b"\n")
    kind = KINDS.get(name) or list(KINDS.values())[sum(name) % len(KINDS)]
    try:
        message = decode(body, kind)
    except WireError as error:
        require(0 < len(str(error)) <= MAX_ERROR_CHARS, "a refusal is a sentence that can be sent on")
        return "refused"
    require(type(message) is kind, "a message is of the type asked for")
    data = encode(message)
    again = decode(data, kind)
    require(again == message, "a message that was encoded is the same message")
    require(encode(again) == data, "equal messages have equal bytes")
    return _use(message)


def _use(message: Message) -> str:
    try:
        for tensor in _tensors(message):
            _check_tensor(tensor)
        _check_whole(message)
    except WireError as error:
        require(str(error), "a refusal is a sentence")
        return "decoded, refused"
    return "decoded"


def _tensors(value: object) -> Iterator[messages.Tensor]:
    """The tensors somewhere in a message."""
    if isinstance(value, messages.Tensor):
        yield value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _tensors(getattr(value, name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _tensors(one)


def _check_tensor(tensor: messages.Tensor) -> None:
    values = unpack(tensor)
    require(values.shape == tensor.shape and np.isfinite(values).all(), "values of a tensor are finite, and all there")
    if tensor.dtype in ("fp32", "bf16"):
        require(pack(values, tensor.dtype) == tensor, "what was unpacked packs to the same bits")


def _check_whole(message: Message) -> None:
    """The checks that both sides make of whole messages."""
    agreed = small_run.RUN
    if isinstance(message, run.RunInfo):
        check_run(message)
        require(message.settings.text_form.max_source_tokens > 0, "a run's texts have a length")
    elif isinstance(message, messages.Adapter):
        check_adapter(message, agreed, small_run.RANKS, version=1)
    elif isinstance(message, messages.Update):
        check_update(message, agreed, small_run.SPEC)
    elif isinstance(message, messages.Profile):
        check_profile(message, agreed)
    elif isinstance(message, messages.Report) and message.kind == "data":
        TextLengths.from_values(message.values)


@contextmanager
def _open(_: Path) -> Iterator[Judge]:
    yield Judge(check)


MESSAGES = Target(
    name="messages",
    about="bytes as messages of every type",
    max_bytes=4096,
    open=_open,
    mutate=behind_first_line(mutate_msgpack, tuple(KINDS)),
)
