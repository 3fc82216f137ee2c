"""Nuisances: what the server turned away, counted by kind, and told in one line a minute for each. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

TOLD_EVERY_S = 60.0
"""Between two lines of one kind. A flood then writes a kilobyte a minute, and not a hundred megabytes."""

MAX_SOURCES = 1_000
"""Sources of one kind that are told apart within a minute; the rest are counted together."""

MAX_LINES = 10
"""Sources of failed logins that get a line of their own in a minute, the busiest first."""

ELSEWHERE = "elsewhere"
"""The source of what came from more than MAX_SOURCES."""


class Nuisance(Enum):
    """A kind of nuisance: its name in metrics, and in words."""

    SILENT = "silent", "connections closed that made no request in time"
    CROWD = "crowd", "connections closed to make room for others"
    NOT_HTTP = "not_http", "requests that were no HTTP"
    NOT_TLS = "not_tls", "connections that spoke no TLS"
    LOGIN = "login", "failed logins"
    TOO_MANY = "too_many", "calls answered with 429, too many at once"
    TOO_LARGE = "too_large", "bodies refused for their size"
    SLOW_BODY = "slow_body", "bodies given up because they came too slowly"
    UNREAD = "unread", "answers given up that nobody read"
    NONSENSE = "nonsense", "requests that made no sense (400)"
    NO_DESCRIPTOR = "no_descriptor", "times that the system had no room for another connection"

    def __init__(self, slug: str, words: str) -> None:
        self.slug, self.words = slug, words


@dataclass(slots=True)
class _Untold:
    """Sources of one kind since its last line, each with how often it came."""

    sources: Counter[str] = field(default_factory=Counter)

    def add(self, source: str) -> None:
        known = source in self.sources or len(self.sources) < MAX_SOURCES
        self.sources[source if known else ELSEWHERE] += 1


class Nuisances:
    """The counts of one server."""

    def __init__(self) -> None:
        self._totals: Counter[Nuisance] = Counter()
        self._untold: dict[Nuisance, _Untold] = {}
        self._told_at: dict[Nuisance, float] = {}

    def count(self, kind: Nuisance, source: str) -> None:
        """One more, from this address or device."""
        self._totals[kind] += 1
        self._untold.setdefault(kind, _Untold()).add(source)

    def totals(self) -> list[dict[str, str | int]]:
        """How many of each kind since the server started, for people and their monitoring."""
        return [{"kind": kind.slug, "words": kind.words, "count": self._totals[kind]} for kind in Nuisance]

    def lines(self, now: float) -> Iterator[str]:
        """The lines that are due: of each kind that occurred, one every TOLD_EVERY_S; of failed logins one for each
        source."""
        for kind in list(self._untold):
            if now - self._told_at.get(kind, -math.inf) >= TOLD_EVERY_S:
                self._told_at[kind] = now
                yield from _lines(kind, self._untold.pop(kind).sources)


def _lines(kind: Nuisance, sources: Counter[str]) -> Iterator[str]:
    if kind is not Nuisance.LOGIN:
        busiest, count = sources.most_common(1)[0]
        of_these = f"from {busiest}" if len(sources) == 1 else f"from {len(sources)} sources, {count} from {busiest}"
        yield f"{sources.total()} {kind.words}, {of_these}"
        return
    ordered = sources.most_common()
    for source, count in ordered[:MAX_LINES]:
        yield f"{count} {kind.words} from {source}"
    if rest := ordered[MAX_LINES:]:
        yield f"{sum(count for _, count in rest)} {kind.words} from {len(rest)} other addresses"
