"""A board's data as the worker read it last, and the word to people when it has changed."""

from __future__ import annotations

from collections.abc import Mapping

from edge_client.agent.board_setup import BoardSetup
from edge_client.agent.events import Events
from edge_client.jobs.messages import DATA_FACTS


class DataWatch:
    """The data that the last job has read. `n_held_out`: examples kept apart in it."""

    def __init__(self, board: BoardSetup, events: Events) -> None:
        self._path, self._events = board.data.path, events
        self.n_held_out = board.n_held_out
        self._checksum: float | None = None

    def seen(self, values: Mapping[str, float]) -> dict[str, float]:
        """A job's numbers without those of its data, which are kept; a change is told."""
        facts = {name: values[name] for name in DATA_FACTS if name in values}
        if facts:
            checksum, n_train, n_held_out = (facts[name] for name in DATA_FACTS)
            if self._checksum not in (None, checksum):
                self._events.console.notice(
                    f"{self._path} has changed: from now on {n_train:.0f} examples are read to train on, and "
                    f"{n_held_out:.0f} to measure on"
                )
            self._checksum, self.n_held_out = checksum, int(n_held_out)
        return {name: value for name, value in values.items() if name not in facts}
