"""Answers of a malicious server, as a board reads them: adapters, patches, runs and histories, and refusals of anybody.

An input's first line says which of them the rest is. A refusal is the head of an HTTP answer and its body.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from multidict import CIMultiDict

from edge_client.engines.adapter_patch import make_whole
from edge_client.errors import ClientError
from edge_client.network.answers import Answer, refused, said_by_others
from edge_client.state.known_run import KnownRun, require_same_run, with_versions
from fuzz.contract import Judge, Mutate, Target, require
from fuzz.mutations import behind_first_line, mutate_bytes, mutate_msgpack
from fuzz.targets.small_run import RANKS, RUN, adapter
from wire.checks import check_adapter, check_run
from wire.codec import decode, encode
from wire.errors import WireError
from wire.limits import MAX_CONTROL_BYTES
from wire.messages import Adapter, History, Refusal, Task
from wire.run import RunInfo
from wire.tensors import unpack

SERVER = "https://192.0.2.7:8470"

VERSION = 2
"""The version that the board asks for; it holds version 1."""


@dataclass(frozen=True, slots=True)
class _Board:
    """A board in a folder, with the adapter that it holds."""

    folder: Path

    def adapter(self, data: bytes) -> None:
        """A whole adapter, as the engine reads it before any tensor becomes torch's."""
        whole = decode(data, Adapter)
        check_adapter(whole, RUN, RANKS, version=VERSION)
        for part in whole.parts:
            for tensor in (part.frozen_b, part.frozen_a, part.basis):
                unpack(tensor)

    def patch(self, data: bytes) -> None:
        """A patch, or what begins as one, in place of the file."""
        path = self.folder / "next"
        path.write_bytes(data)
        make_whole(path, self.folder / "held", RUN, VERSION, RANKS)
        self.adapter(path.read_bytes())

    def run(self, data: bytes) -> None:
        """The run, as the server now says it is."""
        run = decode(data, RunInfo, max_bytes=MAX_CONTROL_BYTES)
        check_run(run)
        known = KnownRun.beginning(RUN)
        require_same_run(known, run)
        after, _ = with_versions(known, run, ())
        kept = msgspec.json.decode(msgspec.json.encode(after), type=KnownRun)
        require(kept == after, "what is known of a run is kept as it is")

    def history(self, data: bytes) -> None:
        """The versions that the server says there are."""
        with_versions(KnownRun.beginning(RUN), RUN, decode(data, History).versions)

    def task(self, data: bytes) -> None:
        """The work that the server says there is."""
        encode(decode(data, Task))

    def refusal(self, data: bytes) -> None:
        """The answer that is none: a refusal, or a page of whatever stands between."""
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        number, _, reason = line.partition(" ")
        status = int(number) if number.isascii() and number.isdigit() and len(number) < 4 else 599
        headers = CIMultiDict((name.strip(), value.strip()) for name, _, value in (one.partition(":") for one in lines))
        answer = Answer(SERVER, status, reason, headers)
        if answer.is_braids:
            error = refused(answer, decode(body, Refusal, max_bytes=MAX_CONTROL_BYTES))
        else:
            error = said_by_others(answer)
        require(isinstance(error, ClientError) and str(error), "an answer that is no success is an error in words")
        require("\x1b" not in str(error) and "\n" not in str(error), "words of others cannot steer a terminal")

    def check(self, data: bytes) -> str:
        name, _, body = data.partition(b"\n")
        readers = self.readers()
        read = readers.get(name) or list(readers.values())[sum(name) % len(readers)]
        try:
            read(body)
        except (WireError, ClientError) as error:
            require(str(error), "a refusal is a sentence")
            return "refused"
        return "read"

    def readers(self) -> Mapping[bytes, Callable[[bytes], None]]:
        return {
            b"adapter": self.adapter,
            b"patch": self.patch,
            b"run": self.run,
            b"history": self.history,
            b"task": self.task,
            b"refusal": self.refusal,
        }


@contextmanager
def _open(folder: Path) -> Iterator[Judge]:
    board = _Board(folder)
    (folder / "held").write_bytes(encode(adapter(1)))
    yield Judge(board.check)


KINDS = (b"adapter", b"patch", b"run", b"history", b"task", b"refusal")

_mutate_message: Mutate = behind_first_line(mutate_msgpack, KINDS)
_mutate_page: Mutate = behind_first_line(partial(mutate_bytes, others=[b"HTTP/1.1 502 Bad Gateway\r\n"]), KINDS)


def _mutate(data: bytes, rng: random.Random) -> bytes:
    return _mutate_page(data, rng) if data.startswith(b"refusal") else _mutate_message(data, rng)


ANSWERS = Target(
    name="answers",
    about="what a malicious server tells a board",
    max_bytes=4096,
    open=_open,
    mutate=_mutate,
)
