"""The log of a server under test: what no input may bring about, a traceback or a complaint of a library."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fuzz.watch import place_of


@dataclass(frozen=True, slots=True)
class Complaint:
    """A record that should not be: its words and traceback, and the place in our code."""

    text: str
    where: str


class Complaints(logging.Handler):
    """Listens to all loggers. The server's own words are no complaint, unless they carry a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._found: list[Complaint] = []

    def listen(self) -> None:
        """Hear what is logged from now on."""
        logging.getLogger().addHandler(self)

    def stop(self) -> None:
        """Hear no more."""
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is None and record.name == "aggregator":
            return
        where = place_of(error) if error is not None else record.name
        kind = f"{type(error).__name__} " if error is not None else ""
        self._found.append(Complaint(f"{record.name}: {self.format(record)}", kind + where))

    def take(self) -> Complaint | None:
        """The first complaint since the last time."""
        found, self._found = self._found, []
        return found[0] if found else None
