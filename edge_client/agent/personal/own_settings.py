"""A run with the local strands that a board asks for itself in place of the run's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wire.run import Personal, RunInfo


def with_own(run: RunInfo, personal: Personal | None) -> RunInfo:
    """The run as a board trains it that asks for these; None where it asks for none, and the run's are taken."""
    if personal is None:
        return run
    return msgspec.structs.replace(run, settings=msgspec.structs.replace(run.settings, personal=personal))


def unshared_ranks(run: RunInfo) -> Mapping[str, int]:
    """0 by name for weights whose global strands the board does not train."""
    personal = run.settings.personal
    unshared = personal.unshared(run.weights) if isinstance(personal, Personal) else ()
    return {weight.name: 0 for weight in run.weights if weight.name in unshared}
