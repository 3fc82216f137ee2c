"""The message that a board downloads: an adapter cut to its ranks, or the patch to the one that it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator.downloads.patches import PatchMaker
from aggregator.merge.state import AdapterState
from aggregator.settings.terms import Terms
from wire.codec import encode
from wire.errors import WireError
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPatch


@dataclass(frozen=True, slots=True)
class HeldState:
    """The version that a board holds, and the ranks that its copy is cut to."""

    state: AdapterState
    ranks: Sequence[int]


class AdapterEncoder:
    """Encodes adapters of one run. One thread at a time."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._patches = PatchMaker()

    def encode(self, state: AdapterState, ranks: Sequence[int], held: HeldState | None = None) -> bytes:
        """`state` cut to `ranks`, whole, or as a patch to what is held where that is smaller."""
        whole = self._cut(state, ranks)
        data = encode(whole)
        patch = None if held is None else self._patch(whole, state, ranks, held)
        return data if patch is None else min(data, encode(patch), key=len)

    def _cut(self, state: AdapterState, ranks: Sequence[int]) -> Adapter:
        return Adapter(
            protocol=PROTOCOL_VERSION,
            run_id=self._terms.run_id,
            version=state.version,
            manifest=self._terms.manifest,
            parts=self._terms.rule.cut(state, ranks, self._terms.download),
        )

    def _patch(self, whole: Adapter, state: AdapterState, ranks: Sequence[int], held: HeldState) -> AdapterPatch | None:
        """The patch from what is held to `whole`, which is `state` cut to `ranks`; None where no patch can say it."""
        rule = self._terms.rule
        try:
            before = rule.cut(held.state, held.ranks, self._terms.download)
        except WireError:  # a board may claim ranks that the version never had
            return None
        parts = self._patches.parts(before, whole.parts, rule.cut(state, ranks, "fp32"))
        if parts is None:
            return None
        return AdapterPatch(
            since=held.state.version,
            protocol=whole.protocol,
            run_id=whole.run_id,
            version=whole.version,
            manifest=whole.manifest,
            parts=parts,
        )
