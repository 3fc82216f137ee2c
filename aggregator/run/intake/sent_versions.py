"""The versions against which updates are read, as boards were sent them."""

from __future__ import annotations

import logging

from aggregator.downloads.versions import Versions
from aggregator.errors import CallError, StateError
from aggregator.merge.contribution import SentVersion
from aggregator.merge.state import AdapterState
from aggregator.settings.terms import Terms

log = logging.getLogger("aggregator")


class SentVersions:
    """Keeps the newest, and the one that the last late update was trained on. Not for several threads at once."""

    def __init__(self, terms: Terms, versions: Versions) -> None:
        self._terms, self._versions = terms, versions
        self._sent: dict[int, SentVersion] = {}

    def get(self, version: int, newest: AdapterState) -> SentVersion:
        """A version as it was sent. Raises CallError "gone" where it cannot be read any more."""
        try:
            state = self._versions.get(version, newest)
        except StateError as error:  # a board would send again for ever if it were told that we failed
            log.error("an update on version %d is refused: %s", version, error)
            raise CallError("gone", f"version {version} cannot be read here any more") from error
        sent = self._sent.get(version)
        if sent is None or sent.state is not state:
            sent = SentVersion(self._terms.rule, state, self._terms.download)
        self._sent = {**{each: kept for each, kept in self._sent.items() if each == newest.version}, version: sent}
        return sent

    def forget(self) -> None:
        """Let go of all: the round is over."""
        self._sent = {}
        self._versions.forget()
