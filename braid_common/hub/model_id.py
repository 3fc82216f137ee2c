"""Names of models on the hub: `ORG/NAME`, or `ORG/NAME@REVISION` for one revision of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"  # the hub allows 96 characters in all; it says so itself for longer ones
_REPO = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

SHOWN_DIGITS = 12
"""Hex digits of a commit that are shown to people, as the hub's own pages do."""


@dataclass(frozen=True, slots=True)
class HubId:
    """A model on the hub.

    Attributes:
        repo: `ORG/NAME`. The few models without an organisation are older than any that Braid can use.
        revision: a branch, a tag or a commit; "" is the branch that the hub shows first.
    """

    repo: str
    revision: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit hash, whose files never change."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def shown(self) -> str:
        """The name for people, a commit in few digits."""
        if not self.revision:
            return self.repo
        return f"{self.repo}@{self.revision[:SHOWN_DIGITS] if self.is_pinned else self.revision}"

    def at(self, revision: str) -> HubId:
        """The same model at another revision."""
        return HubId(self.repo, revision)


def parse_hub_id(text: str) -> HubId | None:
    """The model that `text` names, None where it can be no name on the hub: a path, for example."""
    repo, at, revision = text.partition("@")
    if not _REPO.fullmatch(repo) or ".." in text or (at and not _REVISION.fullmatch(revision)):
        return None
    return HubId(repo, revision)
