"""The guard: what one server knows of those who call it, and the refusals of what is too much."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from aggregator.errors import CallError
from aggregator.http.guard.buckets import Buckets
from aggregator.http.guard.connection import Connection
from aggregator.http.guard.guests import MAX_KNOWN, Guest, Guests, address_key
from aggregator.http.guard.limits import Limits
from aggregator.http.guard.nuisances import Nuisance, Nuisances
from aggregator.http.guard.turns import Turns


class Guard:
    """Counts connections, calls, bodies and seconds of work, by address and by device.

    Args:
        limits: how much of each.
        clock: monotonic seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits, self.clock = limits, clock
        self.guests, self.nuisances, self._turns = Guests(limits), Nuisances(), Turns()
        self._arrivals, self._strangers = Buckets(limits.arrivals), Buckets(limits.stranger_calls)
        self._enrolments = Buckets(limits.enrolments)
        self._logins, self._calls = Buckets(limits.failed_logins), Buckets(limits.calls)
        self._writes = Buckets(limits.writes)
        self._notes, self._work = Buckets(limits.notes), Buckets(limits.work)
        # Hashes, and whose; the last ones that were right.
        self._good_credentials: OrderedDict[str, str] = OrderedDict()
        self._bodies_of_strangers, self._bodies_of_boards = (
            Slots(*limits.bodies_of_strangers),
            Slots(*limits.bodies_of_boards),
        )
        self._downloads = Slots(limits.downloads, limits.connections)

    # --- connections ---

    def admit(self, host: str) -> Guest | None:
        """The guest of a new connection, None where it has to be closed at once. Others are closed to make room."""
        guest, now = Guest(address_key(host)), self.clock()
        if self._arrivals.take(guest.address, now):
            self.nuisances.count(Nuisance.CROWD, guest.address)
            return None
        leaving = self.guests.arrive(guest, now)
        self._send_away(leaving, Nuisance.CROWD)
        return None if guest in leaving else guest

    def watch(self) -> Iterator[str]:
        """Close connections that are silent for too long; the lines for the log that are due. Called every second."""
        now = self.clock()
        self._send_away(self.guests.overdue(now), Nuisance.SILENT)
        return self.nuisances.lines(now)

    def facts(self) -> dict[str, Any]:
        """The guard's part of the status."""
        return {"connections": len(self.guests), "turned_away": self.nuisances.totals()}

    def hear_nonsense(self, guest: Guest) -> None:
        """Count what came and was no HTTP."""
        self.nuisances.count(Nuisance.NOT_HTTP, guest.address)

    def _send_away(self, guests: list[Guest], why: Nuisance) -> None:
        for guest in guests:
            self.nuisances.count(why, guest.address)
            guest.close()

    # --- calls ---

    def need_patience(self, request: web.Request) -> None:
        """Raise CallError (429) where an address has called too often without a credential."""
        address, now = address_of(request), self.clock()
        self._refuse(max(self._strangers.wait_s(address, now), self._enrolments.wait_s(address, now)), address)

    def charge_stranger(self, request: web.Request, *, has_enrolled: bool = False) -> None:
        """Count a call without a credential; an enrolment that succeeded is one of another kind."""
        buckets = self._enrolments if has_enrolled else self._strangers
        buckets.spend(address_of(request), self.clock())

    async def turn(self, request: web.Request, credential_hash: str) -> None:
        """Wait for a call's turn among those of its source: of the caller whose credential it shows, where somebody has
        shown that one before, else of its address."""
        await self._turns.take(self._good_credentials.get(credential_hash) or address_of(request))

    def before_login(self, request: web.Request, credential_hash: str) -> None:
        """Raise CallError (429) for a credential that nobody has shown yet, of an address that guesses; and for one
        whose caller has called too often, before it is looked up again."""
        caller, now = self._good_credentials.get(credential_hash), self.clock()
        if caller is None:
            address = address_of(request)
            self._refuse(self._logins.wait_s(address, now), address)
        else:
            self._refuse(self._calls.wait_s(caller, now), caller)

    def fail_login(self, request: web.Request) -> None:
        """Count a credential that is none."""
        address = address_of(request)
        self._logins.spend(address, self.clock())
        self.nuisances.count(Nuisance.LOGIN, address)

    def welcome(self, request: web.Request, caller: str, credential_hash: str) -> None:
        """Take note of a caller who has shown its credential. Raises CallError (429) where it calls too often."""
        self._good_credentials[credential_hash] = caller
        self._good_credentials.move_to_end(credential_hash)
        if len(self._good_credentials) > MAX_KNOWN:
            self._good_credentials.popitem(last=False)
        self.vouch(request, caller)
        self._refuse(self._calls.take(caller, self.clock()), caller)

    def vouch(self, request: web.Request, caller: str) -> None:
        """Whoever sent this is no stranger any more, and its address is known: it has shown a credential, or a valid
        join token. A fleet that joins all at once from one address then makes no room for itself by turning its own
        away."""
        if (guest := guest_of(request)) is not None:
            self._send_away(self.guests.show_credential(guest, caller), Nuisance.CROWD)

    def note(self, device: str) -> None:
        """Count something that goes into the log for a device. Raises CallError (429) where there was too much."""
        self._refuse(self._notes.take(device, self.clock()), device)

    def write(self, device: str) -> None:
        """Count something that will be stored for a device. Raises CallError (429) where there was too much."""
        self._refuse(self._writes.take(device, self.clock()), device)

    def allowance(self, device: str) -> WorkAllowance:
        """The computing that may be done for a device."""
        return WorkAllowance(self, device)

    def need_work(self, device: str) -> None:
        """Raise CallError (429) where too much was computed for a device lately."""
        self._refuse(self._work.wait_s(device, self.clock(), amount=0.0), device)

    def spend_work(self, device: str, seconds: float) -> None:
        """Charge a device with computing that was done for it."""
        self._work.spend(device, self.clock(), seconds)

    def _refuse(self, wait_s: float, source: str) -> None:
        if wait_s:
            self.nuisances.count(Nuisance.TOO_MANY, source)
            raise too_many(wait_s)

    # --- bodies and downloads ---

    @contextmanager
    def body(self, request: web.Request, device: str) -> Iterator[None]:
        """Room for a body that is read; `device` is "" for a stranger's. Raises CallError (429) where there is none."""
        slots, key = (self._bodies_of_boards, device) if device else (self._bodies_of_strangers, address_of(request))
        with self._slot(slots, key):
            yield

    @contextmanager
    def download(self, device: str) -> Iterator[None]:
        """Room for a file that is sent. Raises CallError (429) where a device fetches too many at once."""
        with self._slot(self._downloads, device):
            yield

    @contextmanager
    def _slot(self, slots: Slots, key: str) -> Iterator[None]:
        if not slots.take(key):
            self.nuisances.count(Nuisance.TOO_MANY, key)
            raise too_many(1.0)
        try:
            yield
        finally:
            slots.release(key)


@dataclass(frozen=True, slots=True)
class WorkAllowance:
    """The computing that a guard lets a device have: `aggregator.downloads.adapters.Allowance`."""

    guard: Guard
    device: str

    def need(self) -> None:
        self.guard.need_work(self.device)

    def spend(self, seconds: float) -> None:
        self.guard.spend_work(self.device, seconds)


class Slots:
    """Places that are taken and given back: so many for each key, and so many in all."""

    def __init__(self, each: int, all_: int) -> None:
        self._each, self._all = each, all_
        self._taken: Counter[str] = Counter()
        self._n_taken = 0

    def take(self, key: str) -> bool:
        """Whether there was a place."""
        if self._taken[key] >= self._each or self._n_taken >= self._all:
            return False
        self._taken[key] += 1
        self._n_taken += 1
        return True

    def release(self, key: str) -> None:
        self._n_taken -= 1
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]


def too_many(wait_s: float) -> CallError:
    """The refusal of one call too many."""
    seconds = math.ceil(wait_s)
    return CallError(
        "busy",
        "too many calls at once",
        f"Try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
        status=429,
    )


def guest_of(request: web.Request) -> Guest | None:
    """The guest whose connection a request came on; None where the application is served by others."""
    return request.protocol.guest if isinstance(request.protocol, Connection) else None


def address_of(request: web.Request) -> str:
    """The address that a request came from, as limits count it."""
    guest = guest_of(request)
    return address_key(request.remote) if guest is None else guest.address
