"""What a board downloads over a run, whole and as differences, and how far its context is from the server's.

    python -m benchmarks.traffic.downloads [--rounds 10] [--steps 20] [--parameters 150000]

Real training of the builtin base on the text of one library, with the server's defaults but for the boards: one trains
for the fleet. Two others only download: one holds all strands of every weight, one at most four of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from aggregator.downloads.patches import Differences
from aggregator.merge.rules.braid import cut
from aggregator.merge.state import AdapterState
from benchmarks.simulation.solo import Recipe, Solo
from edge_client.data.readers import load_data
from edge_client.engines.adapter_patch import changed_parts
from edge_client.state.held_adapter import FULL_EVERY
from wire.codec import encode
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPart, AdapterPatch, Dtype, FactorPatch, WeightPatch
from wire.tensors import unpack

FORMATS: tuple[Dtype, Dtype] = ("bf16", "fp32")
"""As adapters travel, and before rounding."""

MAX_RANK = 16
"""The server's default, as are the others in benchmarks.simulation.solo."""


class Downloads:
    """A board that fetches every version at at most `rank` strands of a weight. Counts bytes of whole adapters, of
    differences, and of differences that leave out unchanged tensors and mix nothing."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.whole_bytes = self.bytes = self.unmixed_bytes = 0
        self.deviation = 0.0  # the largest of any version and weight
        self._differences = Differences()
        self._before: AdapterState | None = None
        self._held: tuple[AdapterPart, ...] = ()
        self._in_a_row = 0

    def fetch(self, state: AdapterState) -> None:
        """One round's download."""
        sent, exact = (cut(state, self._ranks(state), dtype) for dtype in FORMATS)
        whole_bytes = len(encode(_whole(sent)))
        changes = None if self._before is None or self._in_a_row == FULL_EVERY else self._changes(sent, exact)
        size_bytes = whole_bytes if changes is None else len(encode(_difference(changes)))
        unmixed_bytes = whole_bytes if changes is None else len(encode(_difference(_unmixed(changes, sent))))
        if changes is None or size_bytes >= whole_bytes:
            self._held, self._in_a_row = sent, 0
        else:
            self._held, self._in_a_row = changed_parts(self._held, changes), self._in_a_row + 1
        self._before = state
        self.whole_bytes += whole_bytes
        self.bytes += min(size_bytes, whole_bytes)
        self.unmixed_bytes += min(unmixed_bytes, whole_bytes)
        self.deviation = max(self.deviation, *map(_deviation, self._held, exact))

    def _changes(self, sent: tuple[AdapterPart, ...], exact: tuple[AdapterPart, ...]) -> tuple[WeightPatch, ...] | None:
        assert self._before is not None
        return self._differences.parts(cut(self._before, self._ranks(self._before), FORMATS[0]), sent, exact)

    def _ranks(self, state: AdapterState) -> Sequence[int]:
        return [min(self.rank, len(weight.basis)) for weight in state.weights.values()]


def _whole(parts: tuple[AdapterPart, ...]) -> Adapter:
    return Adapter(protocol=PROTOCOL_VERSION, run_id="solo", version=1, manifest="0" * 64, parts=parts)


def _difference(parts: tuple[WeightPatch, ...]) -> AdapterPatch:
    return AdapterPatch(since=1, protocol=PROTOCOL_VERSION, run_id="solo", version=2, manifest="0" * 64, parts=parts)


def _unmixed(changes: tuple[WeightPatch, ...], sent: tuple[AdapterPart, ...]) -> tuple[WeightPatch, ...]:
    """The same changes with every factor whole."""
    parts = {part.name: part for part in sent}
    return tuple(
        replace(
            change,
            frozen_b=change.frozen_b and FactorPatch(new=parts[change.name].frozen_b),
            frozen_a=change.frozen_a and FactorPatch(new=parts[change.name].frozen_a),
        )
        for change in changes
    )


def _deviation(found: AdapterPart, exact: AdapterPart) -> float:
    got, true = (unpack(part.frozen_b).astype(np.float64) @ unpack(part.frozen_a) for part in (found, exact))
    return float(np.linalg.norm(got - true) / max(float(np.linalg.norm(true)), np.finfo(np.float64).tiny))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=150_000, help="values of B that a round trains at most")
    parser.add_argument("--library", default="networkx")
    flags = parser.parse_args()
    recipe = Recipe(
        scope="all",
        learning_rate=0.005,
        max_rank=MAX_RANK,
        n_parameters=flags.parameters,
        seed=1,
        batch=8,
        max_source_tokens=96,
        max_target_tokens=24,
    )
    boards = [Downloads(MAX_RANK), Downloads(4)]
    with tempfile.TemporaryDirectory() as folder:
        solo = Solo(recipe, load_data(f"builtin:docstrings/{flags.library}").train, Path(folder))
        solo.begin()
        for _ in range(flags.rounds):
            for board in boards:
                board.fetch(solo.state)
            solo.round(flags.steps)
            print(f"{solo.n_weights} weights trained", flush=True)
    for board in boards:
        for name, size_bytes in (("unchanged tensors left out", board.unmixed_bytes), ("differences", board.bytes)):
            print(
                f"at most {board.rank} strands, {name}: {size_bytes / board.whole_bytes:.3f} of {board.whole_bytes:,} B"
            )
        print(f"at most {board.rank} strands, largest deviation of a context: {board.deviation:.4f}")


if __name__ == "__main__":
    main()
