"""Sessions of a board: one for each start of its client, and what shows that two clients have one identity. Pure.

A client that is started anew never goes back to the session before. So a session that speaks again after a newer one
was heard means two clients at work: a state folder was copied, or a card. The newest one is served, the other is told
(docs/decisions/0060-who-is-let-in.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KEPT = 8
"""Sessions that are remembered of a board. A client that was started more often meanwhile is not recognised as an old
one: it takes over, and the next call of the other shows the copy."""

SILENT_S = 120.0
"""A client that was not heard of for two long polls has ended, and an older one may take its place again."""

TELL_AGAIN_S = 3600.0
"""People are told of the same copy once in this time."""

SHOWN_S = 24 * 3600.0
"""A copy that was not heard of for this long is not shown any more; the log still has it."""


@dataclass(frozen=True, slots=True)
class Session:
    """One start of a client: the id that it drew then, the address that it called from last, and when."""

    id: str
    address: str
    seen_s: float


@dataclass(frozen=True, slots=True)
class Copies:
    """Two clients of one identity: the addresses of the one that is served and of the other, when both were heard last,
    and when people were told (monotonic seconds)."""

    served: str
    other: str
    at_s: float
    told_s: float

    @classmethod
    def heard(cls, before: Copies | None, served: str, other: str, now: float) -> Copies:
        """The copies after another sign of them; people are told of the same two addresses once in TELL_AGAIN_S."""
        is_known = before is not None and {before.served, before.other} == {served, other}
        if before is not None and is_known and now - before.told_s < TELL_AGAIN_S:
            return cls(served, other, now, before.told_s)
        return cls(served, other, now, now)


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of one board. `current`: the one that is served; `former`: those before it, newest first; `copies`:
    the last sign of a copy."""

    current: Session | None = None
    former: tuple[Session, ...] = ()
    copies: Copies | None = None

    def serves(self, session: str) -> bool:
        """Whether calls of a session are answered."""
        return self.current is not None and self.current.id == session

    def heard(self, session: str, address: str, now: float) -> Sessions:
        """The sessions after a call.

        Args:
            session: the id in the call, "" where it has none.
            address: where it came from.
            now: monotonic seconds.
        """
        mine, current = Session(session, address, now), self.current
        if current is None or current.id == session:
            return replace(self, current=mine)
        others = tuple(each for each in self.former if each.id != session)
        is_newer = len(others) == len(self.former)
        if is_newer or now - current.seen_s >= SILENT_S:
            return replace(self, current=mine, former=(current, *others)[:KEPT])
        return replace(self.with_copy(address, now), former=(mine, *others)[:KEPT])

    def recent_copies(self, now: float) -> Copies | None:
        """The last sign of a copy, if it is not of the day before."""
        return self.copies if self.copies is not None and now - self.copies.at_s < SHOWN_S else None

    def with_copy(self, address: str, now: float) -> Sessions:
        """The sessions after a sign of another client of the same identity, from `address`."""
        served = "an unknown address" if self.current is None else self.current.address
        return replace(self, copies=Copies.heard(self.copies, served, address, now))
