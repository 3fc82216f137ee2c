"""The guest book: who is connected, and who has to go when there is no room. Pure: times are arguments."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.http.guard.limits import Limits

MAX_KNOWN = 20_000
"""Addresses remembered from which boards have called: boards on mobile links change theirs."""

_IPV6_NETWORK = 64  # a customer's: whoever has one address of it has all


def _nothing() -> None:
    """The way to close a connection that is not open yet."""


@dataclass(slots=True, eq=False)
class Guest:
    """One connection. `caller`: the device, or the operator, whose credential it showed last; "" for a stranger."""

    address: str
    close: Callable[[], object] = field(default=_nothing, repr=False)
    caller: str = ""
    is_acquainted: bool = False  # from an address where a board had shown its credential


Book = OrderedDict[Guest, None]


class Guests:
    """All connections. A stranger is a guest that has shown no credential yet; strangers make room, the oldest first.

    Whoever is told to go is out of the book at once; the caller closes the connection.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._strangers: Book = OrderedDict()  # from unknown addresses, in order of arrival
        self._acquainted: Book = OrderedDict()  # strangers from known addresses
        self._by_address: dict[str, Book] = {}  # strangers
        self._by_caller: dict[str, Book] = {}
        self._waiting: OrderedDict[Guest, float] = OrderedDict()  # strangers, since when they have said nothing
        self._known: OrderedDict[str, None] = OrderedDict()
        self._n_members = 0

    def __len__(self) -> int:
        return len(self._strangers) + len(self._acquainted) + self._n_members

    def arrive(self, guest: Guest, now: float) -> list[Guest]:
        """Write a guest into the book; those who have to go for it. It is one of them where only known boards are
        here."""
        limits, mine = self._limits, self._by_address.get(guest.address, OrderedDict())
        guest.is_acquainted = guest.address in self._known
        leaving = None
        if len(mine) >= (limits.per_known_address if guest.is_acquainted else limits.per_address):
            leaving = next(iter(mine))
        elif not guest.is_acquainted and len(self._strangers) >= limits.strangers:
            leaving = next(iter(self._strangers))
        elif len(self) >= limits.connections:
            leaving = next(iter(self._strangers or self._acquainted), guest)
        if leaving is guest:
            return [guest]
        if leaving is not None:
            self.leave(leaving)
        (self._acquainted if guest.is_acquainted else self._strangers)[guest] = None
        self._by_address.setdefault(guest.address, OrderedDict())[guest] = None
        self._waiting[guest] = now
        return [] if leaving is None else [leaving]

    def leave(self, guest: Guest) -> None:
        """Cross a guest out. One that is not in the book, as after it was told to go, is no error."""
        if guest.caller:
            if _drop(self._by_caller, guest.caller, guest):
                self._n_members -= 1
            return
        self._waiting.pop(guest, None)
        self._strangers.pop(guest, None)
        self._acquainted.pop(guest, None)
        _drop(self._by_address, guest.address, guest)

    def show_credential(self, guest: Guest, caller: str) -> list[Guest]:
        """A guest is known from now on, and so is its address; those of the caller's connections that have to go."""
        self._known[guest.address] = None
        self._known.move_to_end(guest.address)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if guest.caller == caller or not self._has(guest):  # a connection that broke while its call was read
            return []
        self.leave(guest)
        guest.caller = caller
        mine = self._by_caller.setdefault(caller, OrderedDict())
        mine[guest] = None
        self._n_members += 1
        if len(mine) <= self._limits.per_caller:
            return []
        oldest = next(iter(mine))
        self.leave(oldest)
        return [oldest]

    def begin(self, guest: Guest) -> None:
        """A request's header has come."""
        self._waiting.pop(guest, None)

    def end(self, guest: Guest, now: float) -> None:
        """A request has been answered."""
        if not guest.caller and self._has(guest):
            self._waiting[guest] = now
            self._waiting.move_to_end(guest)

    def overdue(self, now: float) -> list[Guest]:
        """Strangers that have said nothing for too long; they are out of the book."""
        found = []
        while self._waiting:
            guest, since = next(iter(self._waiting.items()))
            if now - since < self._limits.header_s:
                break
            self.leave(guest)
            found.append(guest)
        return found

    def _has(self, guest: Guest) -> bool:
        return guest in (
            self._by_caller.get(guest.caller, {}) if guest.caller else self._by_address.get(guest.address, {})
        )


def _drop(books: dict[str, Book], key: str, guest: Guest) -> bool:
    """Take a guest out of one of the books, and the book away when it is empty; whether it was there."""
    book = books.get(key)
    if book is None or guest not in book:
        return False
    del book[guest]
    if not book:
        del books[key]
    return True


def address_key(host: str | None) -> str:
    """The address that limits count by: an IPv4 address, or the network of an IPv6 one."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or "?"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
    return str(address)
