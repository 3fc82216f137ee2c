"""The HTTP side of the protocol: every call with its path, the headers of uploads, and the grammar of queries.

docs/concepts/protocol.md's table of calls is written from this file: the string below a call says what its row does
not."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wire.errors import WireError
from wire.fields import Message
from wire.limits import MAX_RANK, MAX_WEIGHTS
from wire.messages import (
    BaseFiles,
    Enrol,
    Enrolled,
    History,
    Profile,
    Proof,
    Prove,
    Receipt,
    Renew,
    Report,
    Task,
)
from wire.run import RunInfo

UPLOAD_DIGEST = "Upload-Digest"
"""SHA-256 of an upload's whole body in lower-case hex: the upload's name."""

UPLOAD_LENGTH = "Upload-Length"
"""Bytes of an upload's whole body."""

UPLOAD_OFFSET = "Upload-Offset"
"""In a request, where its bytes begin; in an answer, how many bytes the server has."""

UPLOAD_COMPLETE = "Upload-Complete"
"""In the answer to HEAD: 1 if this very upload was answered already, else 0."""

SESSION = "Braid-Session"
"""32 hexadecimal digits that a client draws when it starts, in every call for its part in the run: two clients that use
one credential at once are told apart by it."""

SESSION_PATTERN = re.compile(r"[0-9a-f]{32}")
"""The digits of a session."""

MAX_QUERY_CHARS = 6000
"""Characters that a board spends on the ranks in an address; a longer query asks for the whole adapter. Servers and
proxies commonly take 8 KiB of address, and FLAN-T5-xxl's 432 weights need up to 2600 for two lists of ranks."""

MAX_WAIT_S = 1e9
"""Seconds that a board may ask a server to wait; the server shortens them to MAX_LONG_POLL_S."""

_MAX_RANKS_CHARS = MAX_WEIGHTS * (len(str(MAX_RANK)) + 1)


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of HTTP request.

    Attributes:
        method: HTTP's.
        path: with `{name}` where a part of it varies.
        query: a query as an example, for people.
        sends, answers: the messages, or words where the body is none.
    """

    method: str
    path: str
    query: str = ""
    sends: type[Message] | str = ""
    answers: type[Message] | str = ""

    def at(self, part: int | str) -> str:
        """The path with its one varying part filled in."""
        return re.sub(r"\{\w+\}", lambda _: str(part), self.path)  # a function: its result may hold backslashes


ENROL = Call("POST", "/v1/devices", sends=Enrol, answers=Enrolled)
"""The join token is in the body."""

PROOF = Call("POST", "/v1/proofs", sends=Prove, answers=Proof)
"""Asked at an address that is new to an enrolled board, before its credential is sent there. No credential."""

LEAVE = Call("DELETE", "/v1/device", answers="204")
"""The board goes: its credential ends, and no round waits for it. Enrolling again with the same `install_id` is the
same device."""

RENEW = Call("PUT", "/v1/credential", sends=Renew, answers="204")
"""Under the credential in use, where a task says `renew`: the next one is valid from now on, and the one in use until
the next one was used. 409 where none is due."""

RUN = Call("GET", "/v1/run", answers=RunInfo)
"""All that a board must know to plan."""

PROFILE = Call("POST", "/v1/profiles", sends=Profile, answers=Receipt)
"""Needs Content-Length. One per device; a second one gets the first one's receipt."""

WORK = Call("GET", "/v1/work", query="wait=S&after=R", answers=Task)
"""Long poll: answers at once if there is something to do, else within S seconds."""

HISTORY = Call("GET", "/v1/versions", query="after=V", answers=History)
"""The versions after V, and the digests by which `RunInfo.history` is reckoned."""

ADAPTER = Call("GET", "/v1/adapters/{version}", query="ranks=4.0.8&have=V&had=4.2.0", answers="Adapter or AdapterPatch")
"""`ranks` has one rank per weight of the manifest, joined by dots; all 0 sends the whole global adapter as frozen
factors. `have` and `had` are for a board that holds version V cut to the ranks `had` (left out where they are `ranks`):
it gets the patch from that one where the patch is smaller and V is still kept, else the whole adapter. The body's first
key tells which it is: `since` or `protocol`. ETag and Range are as for any file."""

UPLOAD_STATE = Call("HEAD", "/v1/uploads/{round}")
"""How much of an upload has arrived."""

UPLOAD = Call("PATCH", "/v1/uploads/{round}", sends="bytes of an Update", answers=Receipt)
"""Bytes from an offset on."""

REPORT = Call("POST", "/v1/reports", sends=Report, answers="204")
"""Numbers for people; losing one harms nothing."""

BASE = Call("GET", "/v1/base", answers=BaseFiles)
"""Names and sizes of the base's files."""

BASE_FILE = Call("GET", "/v1/base/{file}", answers="the file")
"""Files of the base, for boards that reach no hub."""

HEALTHZ = Call("GET", "/healthz", answers="text")
"""The process answers. No credential."""

READYZ = Call("GET", "/readyz", answers="text")
"""The orchestrator is at work. No credential."""

STATUS = Call("GET", "/v1/status", answers="JSON")
"""For the operator, with the operator's token."""

METRICS = Call("GET", "/metrics", answers="Prometheus text")
"""For the operator, with the operator's token."""

INDEX = Call("GET", "/", answers="HTML")
"""For the operator, with the operator's token; `?part=1` gives the part that the page's script replaces."""


@dataclass(frozen=True, slots=True)
class Held:
    """An adapter that a board holds: a version, cut to ranks (manifest order)."""

    version: int
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AdapterQuery:
    """The ranks (manifest order) that a board asks for, and the adapter to which a patch would serve it as well."""

    ranks: tuple[int, ...]
    held: Held | None = None

    def encode(self) -> dict[str, str]:
        """The query's parts. `held` is left out where they would be longer than MAX_QUERY_CHARS."""
        query = {"ranks": _joined(self.ranks)}
        if self.held is None:
            return query
        had = {} if self.held.ranks == self.ranks else {"had": _joined(self.held.ranks)}
        longer = {**query, "have": str(self.held.version), **had}
        return longer if sum(map(len, longer.values())) <= MAX_QUERY_CHARS else query

    @classmethod
    def decode(cls, query: Mapping[str, str]) -> AdapterQuery:
        """The query of these parts. Raises WireError that names the part which is none of ours."""
        ranks = _ranks(query, "ranks")
        if "have" not in query:
            return cls(ranks)
        return cls(ranks, Held(whole_number("have", query["have"]), _ranks(query, "had") if "had" in query else ranks))


@dataclass(frozen=True, slots=True)
class WorkQuery:
    """How long the server may hold back an answer, and the last round that the board has answered or given up.

    The board is not told about that round again. `after` is -1 where there is none.
    """

    wait_s: float = 0.0
    after: int = -1

    def encode(self) -> dict[str, str]:
        """The query's parts."""
        return {"wait": f"{self.wait_s:g}", "after": str(self.after)}

    @classmethod
    def decode(cls, query: Mapping[str, str]) -> WorkQuery:
        """The query of these parts, either of which may be missing. Raises WireError that names the part."""
        wait, after = query.get("wait", ""), query.get("after", "")
        return cls(
            wait_s=_seconds("wait", wait) if wait else 0.0,
            after=-1 if after in ("", "-1") else whole_number("after", after),
        )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= MAX_WAIT_S:  # NaN is refused here as well
        raise WireError(f"{name}={text[:40]!r} is no number of seconds")
    return seconds


def whole_number(name: str, text: str) -> int:
    """A whole number of at most 9 digits in an address. Raises WireError that names it."""
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise WireError(f"{name} {text[:40]!r} is not a number")
    return int(text)


def _joined(ranks: Sequence[int]) -> str:
    return ".".join(map(str, ranks))


def _ranks(query: Mapping[str, str], name: str) -> tuple[int, ...]:
    text = query.get(name, "")
    # The length comes first: a list of ranks is split only once it cannot be longer than a manifest.
    if len(text) > _MAX_RANKS_CHARS or not re.fullmatch(r"\d{1,3}(\.\d{1,3})*", text, re.ASCII):
        raise WireError(f"{name} must be numbers with dots between, one per weight, such as {name}=8.4.0")
    return tuple(int(rank) for rank in text.split("."))
