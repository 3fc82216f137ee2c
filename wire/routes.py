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
from wire.limits import MAX_EPOCH_CHARS, MAX_RANK, MAX_WEIGHTS
from wire.messages import BaseFiles, Enrol, Enrolled, History, Proof, Prove, Renew, Report, Task
from wire.run import RunInfo

UPLOAD_DIGEST = "Upload-Digest"
"""SHA-256 of an upload's whole body in lower-case hex: the upload's name."""

UPLOAD_LENGTH = "Upload-Length"
"""Bytes of an upload's whole body."""

UPLOAD_OFFSET = "Upload-Offset"
"""In a request, where its bytes begin; in an answer, how many bytes the server has."""

UPLOAD_COMPLETE = "Upload-Complete"
"""In the answer to HEAD: 1 if all of this very upload is on the server's disk, else 0."""

PROFILING = 0
"""The round of the profiles: there is no version yet."""

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

WORK = Call("GET", "/v1/work", query="wait=S&after=R&epoch=E", answers=Task)
"""Long poll: answers at once if there is something to do, else within S seconds."""

HISTORY = Call("GET", "/v1/versions", query="after=V", answers=History)
"""The versions after V, and the digests by which `RunInfo.history` is reckoned."""

ADAPTER = Call(
    "GET", "/v1/adapters/{version}", query="ranks=4.0.8&have=V&of=D&had=4.2.0", answers="Adapter or AdapterPatch"
)
"""`ranks` has one rank per weight of the manifest, joined by dots; all 0 sends the whole global adapter as frozen
factors. `have`, `of` and `had` are for a board that holds version V of digest D (`version_digest` of its task) cut to
the ranks `had` (left out where they are `ranks`): it gets the patch from that one where the patch is smaller and that V
is still kept, else the whole adapter. The body's first key tells which it is: `since` or `protocol`. ETag and Range are
as for any file."""

UPLOAD_STATE = Call("HEAD", "/v1/uploads/{round}")
"""How much of an upload has arrived."""

UPLOAD = Call("PATCH", "/v1/uploads/{round}", sends="bytes of an Update or Profile", answers="202, or a Receipt")
"""Bytes from an offset on; round 0 takes profiles. 202 once all of it is on the server's disk; the Receipt itself where
it was judged already. A board profiles once: whatever comes second gets the first one's receipt."""

RECEIPT = Call("GET", "/v1/uploads/{round}", query="wait=S", answers="Receipt, or 202")
"""Long poll for the judgement on an upload, with its Upload-Digest: 202 where there is none yet after S seconds."""

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
    """An adapter that a board holds: a version, cut to ranks (manifest order), and the digest by which it was named."""

    version: int
    ranks: tuple[int, ...]
    version_digest: str = ""


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
        of = {"of": self.held.version_digest} if self.held.version_digest else {}
        longer = {**query, "have": str(self.held.version), **of, **had}
        return longer if sum(map(len, longer.values())) <= MAX_QUERY_CHARS else query

    @classmethod
    def decode(cls, query: Mapping[str, str]) -> AdapterQuery:
        """The query of these parts. Raises WireError that names the part which is none of ours."""
        ranks = _ranks(query, "ranks")
        if "have" not in query:
            return cls(ranks)
        had = _ranks(query, "had") if "had" in query else ranks
        return cls(ranks, Held(whole_number("have", query["have"]), had, _version_digest(query.get("of", ""))))


@dataclass(frozen=True, slots=True)
class WorkQuery:
    """How long the server may hold back an answer, and the last round that the board has answered or given up.

    The board is not told about that round again, unless the server has been started again since `epoch`, which is that
    of the round's task: it may have been restored to what it was before. `after` is -1 where there is none.
    """

    wait_s: float = 0.0
    after: int = -1
    epoch: str = ""

    def encode(self) -> dict[str, str]:
        """The query's parts."""
        return {"wait": f"{self.wait_s:g}", "after": str(self.after), **({"epoch": self.epoch} if self.epoch else {})}

    @classmethod
    def decode(cls, query: Mapping[str, str]) -> WorkQuery:
        """The query of these parts, any of which may be missing. Raises WireError that names the part."""
        after, epoch = query.get("after", ""), query.get("epoch", "")
        if len(epoch) > MAX_EPOCH_CHARS:
            raise WireError(f"epoch has {len(epoch)} characters, at most {MAX_EPOCH_CHARS} are sent")
        return cls(
            wait_s=wait_s_of(query),
            after=-1 if after in ("", "-1") else whole_number("after", after),
            epoch=epoch,
        )


def wait_s_of(query: Mapping[str, str]) -> float:
    """How long the server may hold back an answer, by a query. Raises WireError."""
    wait = query.get("wait", "")
    return _seconds("wait", wait) if wait else 0.0


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


def _version_digest(text: str) -> str:
    if not re.fullmatch(r"([0-9a-f]{16})?", text):
        raise WireError(f"of={text[:40]!r} is the digest of no version")
    return text


def _joined(ranks: Sequence[int]) -> str:
    return ".".join(map(str, ranks))


def _ranks(query: Mapping[str, str], name: str) -> tuple[int, ...]:
    text = query.get(name, "")
    # The length comes first: a list of ranks is split only once it cannot be longer than a manifest.
    if len(text) > _MAX_RANKS_CHARS or not re.fullmatch(r"\d{1,3}(\.\d{1,3})*", text, re.ASCII):
        raise WireError(f"{name} must be numbers with dots between, one per weight, such as {name}=8.4.0")
    return tuple(int(rank) for rank in text.split("."))
