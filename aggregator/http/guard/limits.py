"""The limits of the guard, each with its reason. None of them is met by a fleet of honest boards."""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass, field, replace

from aggregator.http.guard.buckets import Rate

MAX_DESCRIPTORS = 65_536
"""Descriptors that a server asks for: three for each of `settings.keys.MAX_DEVICES` boards, and as many again."""

OWN_DESCRIPTORS = 128
"""Kept for the database, blobs, and what libraries open."""

FEW_CONNECTIONS = 1_000
"""Where the system allows fewer, the log says so at the start."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the server is for whom.

    Attributes:
        connections: in all. Half of the descriptors, since a connection may have a file open.
        strangers: of these, those from addresses where no board has shown its credential: the others are kept for
            boards that are known.
        per_address: connections from one address that have shown no credential yet. A board shows its own in the first
            milliseconds, and what is displaced is the oldest; but a fleet of a thousand that joins at one instant has
            all its connections open before the first of them has been heard.
        per_known_address: the same where a board has shown its credential, or a valid join token: a router may stand
            before a whole fleet.
        per_caller: connections of one device. A client has four.
        header_s: how long a connection may be silent, or take to say a request's header, before its first credential.
        arrivals: connections from one address. A fleet behind one router that comes back at once is within it.
        stranger_calls: calls without a credential from one address, but for enrolments with a valid token.
        enrolments: of these, from one address: a fleet may join all at once.
        failed_logins: credentials from one address that are none.
        calls: of one device. A client asks for work, reports twice a second at most, and fetches.
        notes: of one device, of what is written into the log.
        writes: of one device, of what is stored: updates, plans, evaluations. A round takes three.
        work: seconds of computing for one device, which is cutting adapters to ranks: a second or so in a round.
        bodies_of_strangers, bodies_of_boards: bodies that are read at once, of one address or device and in all. A
            stranger's is of 4 KiB at most, in a second packet where it is not in the first. A thousand boards may send
            their updates at the same moment, and report meanwhile; what has come of a body, some 16 KiB, is in memory.
        downloads: of one device at once.
    """

    connections: int = (MAX_DESCRIPTORS - OWN_DESCRIPTORS) // 2
    strangers: int = 2_048
    per_address: int = 1_024
    per_known_address: int = 2_048
    per_caller: int = 16
    header_s: float = 10.0
    arrivals: Rate = field(default=Rate(per_s=1_000.0, burst=5_000.0))
    stranger_calls: Rate = field(default=Rate(per_s=20.0, burst=200.0))
    enrolments: Rate = field(default=Rate(per_s=20.0, burst=2_000.0))
    failed_logins: Rate = field(default=Rate(per_s=1.0, burst=30.0))
    calls: Rate = field(default=Rate(per_s=50.0, burst=1_000.0))
    notes: Rate = field(default=Rate(per_s=0.2, burst=20.0))
    writes: Rate = field(default=Rate(per_s=10.0, burst=100.0))
    work: Rate = field(default=Rate(per_s=0.1, burst=10.0))
    bodies_of_strangers: tuple[int, int] = (64, 256)
    bodies_of_boards: tuple[int, int] = (4, 2_048)
    downloads: int = 4

    def within(self, descriptors: int) -> Limits:
        """The limits on a system that allows so many descriptors."""
        connections = max(1, min(self.connections, (descriptors - OWN_DESCRIPTORS) // 2))
        return replace(self, connections=connections, strangers=min(self.strangers, connections // 4))


def raise_descriptor_limit() -> int:
    """Take as many descriptors as the system allows this process, MAX_DESCRIPTORS at most; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a sandbox may forbid even that: then what there is has to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def few_connections_warning(limits: Limits) -> str:
    """A sentence where the system allows fewer connections than a large fleet has; "" elsewhere."""
    if limits.connections >= FEW_CONNECTIONS:
        return ""
    return (
        f"WARNING: the system allows this process so few open files that it holds {limits.connections} connections at "
        "most: raise the limit (LimitNOFILE= in a systemd unit, `ulimit -Hn`)"
    )
