"""Downloads of a board over a run, whole and as patches, and how far its adapter is from the server's.

    python -m benchmarks.traffic.downloads [--rule braid] [--rounds 10] [--steps 20] [--parameters 150000]
    python -m benchmarks.traffic.downloads --quick     # a minute, to see that it works

Real training of the builtin base on the text of one library, with the server's defaults but for the boards: one trains
for the fleet. Two others only download: one holds all strands of every weight, one at most four of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from aggregator.downloads.patches import PatchMaker
from aggregator.merge.rules import RULES, Rule
from aggregator.merge.state import AdapterState
from benchmarks.simulation.setting import OPEN_END, Recipe
from benchmarks.simulation.strands import ranks_within
from edge_client.data.load import load_data
from edge_client.engines.adapter_patch import changed_parts
from edge_client.jobs.data_spec import DataSpec
from edge_client.state.held_adapter import FULL_EVERY
from wire.codec import encode
from wire.fields import Dtype
from wire.limits import PROTOCOL_VERSION
from wire.messages import Adapter, AdapterPart, AdapterPatch, FactorPatch, WeightPatch
from wire.tensors import unpack

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Federation

FORMATS: tuple[Dtype, Dtype] = ("bf16", "fp32")
"""The number formats of adapters as they travel, and before rounding."""

MAX_RANK = 16
"""The server's default, as are the recipe's other values."""


class Downloads:
    """A board that fetches every version at at most `rank` strands of a weight, and counts.

    Attributes:
        rank: strands of a weight, at most.
        whole_bytes, bytes, unmixed_bytes: of whole adapters, of patches, and of patches that leave out unchanged
            tensors and mix nothing, each where it is smaller than the whole.
        deviation: the largest distance of a weight's frozen product from the server's, over that one's norm.
    """

    def __init__(self, rule: Rule[Any], rank: int) -> None:
        self._rule, self.rank = rule, rank
        self.whole_bytes = self.bytes = self.unmixed_bytes = 0
        self.deviation = 0.0
        self._patches = PatchMaker()
        self._before: AdapterState | None = None
        self._held: tuple[AdapterPart, ...] = ()
        self._in_a_row = 0

    def fetch(self, state: AdapterState) -> None:
        """Fetch one version, as a patch where that is smaller."""
        sent, exact = (self._rule.cut(state, self._ranks(state), dtype) for dtype in FORMATS)
        whole_bytes = len(encode(_whole(sent)))
        changes = None if self._before is None or self._in_a_row == FULL_EVERY else self._changes(sent, exact)
        size_bytes = whole_bytes if changes is None else len(encode(_patch(changes)))
        unmixed_bytes = whole_bytes if changes is None else len(encode(_patch(_unmixed(changes, sent))))
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
        before = self._rule.cut(self._before, self._ranks(self._before), FORMATS[0])
        return self._patches.parts(before, sent, exact)

    def _ranks(self, state: AdapterState) -> Sequence[int]:
        return [min(self.rank, len(weight.basis)) for weight in state.weights.values()]


def _whole(parts: tuple[AdapterPart, ...]) -> Adapter:
    return Adapter(protocol=PROTOCOL_VERSION, run_id="solo", version=1, manifest="0" * 64, parts=parts)


def _patch(parts: tuple[WeightPatch, ...]) -> AdapterPatch:
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


def _deviation(held: AdapterPart, exact: AdapterPart) -> float:
    """Distance of the held product B·A (m, n) from the exact one, over that one's Frobenius norm."""
    got, true = (unpack(part.frozen_b).astype(np.float64) @ unpack(part.frozen_a) for part in (held, exact))
    return float(np.linalg.norm(got - true) / max(float(np.linalg.norm(true)), np.finfo(np.float64).tiny))


def main() -> None:
    options = _options()
    boards = [Downloads(RULES[options.rule], rank) for rank in (MAX_RANK, 4)]
    with tempfile.TemporaryDirectory() as folder:
        federation = _federation(options, Path(folder))
        federation.begin()
        for _ in range(options.rounds):
            for board in boards:
                board.fetch(federation.state)
            federation.run_round()
            print(f"{sum(rank > 0 for rank in federation.ranks[0])} weights trained", flush=True)
    for board in boards:
        for name, size_bytes in (("unchanged tensors left out", board.unmixed_bytes), ("patches", board.bytes)):
            print(
                f"at most {board.rank} strands, {name}: {size_bytes / board.whole_bytes:.3f} of {board.whole_bytes:,} B"
            )
        print(f"at most {board.rank} strands, largest deviation of a frozen product: {board.deviation:.4f}")


def _federation(options: argparse.Namespace, folder: Path) -> Federation:
    """The board that trains for the fleet."""
    from benchmarks.simulation.federation import Board, Federation  # imports torch
    from benchmarks.simulation.session import process_session

    recipe = Recipe(
        rule=options.rule,
        scope="all",
        learning_rate=0.005,
        seed=1,
        rounds=OPEN_END,
        local_steps=options.steps,
        batch=8,
        max_rank=MAX_RANK,
        max_source_tokens=96,
        max_target_tokens=24,
    )
    text = tuple(load_data(DataSpec(f"builtin:docstrings/{options.library}")).train)
    board = Board(text, (), partial(ranks_within, n_parameters=options.parameters))
    return Federation(recipe, [board], folder, process_session())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=RULES, default="braid")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--parameters", type=int, default=150_000, help="values of B that a round trains at most")
    parser.add_argument("--library", default="networkx")
    parser.add_argument("--quick", action="store_true", help="three rounds of three steps: no result")
    options = parser.parse_args()
    if options.quick:
        options.rounds = options.steps = 3
    return options


if __name__ == "__main__":
    main()
