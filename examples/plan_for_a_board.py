"""Planning for a board that is not at hand: what would one with 1 GiB train of FLAN-T5-small?

    python examples/plan_for_a_board.py

Neither weights nor torch are needed: memory and operations follow from shapes.
"""

from __future__ import annotations

from edge_client.base.config import base_config
from edge_client.host.board import Board
from edge_client.plan.choose import choose, explain
from wire.limits import PROTOCOL_VERSION
from wire.manifest import manifest_digest, t5_weights
from wire.messages import Base, RunInfo, TrainSettings

SETTINGS = TrainSettings(
    scope="decoder",
    learning_rate=0.005,
    batch=16,
    micro_batch=4,
    local_steps=20,
    max_source_tokens=512,
    max_target_tokens=64,
    sketch_batches=8,
    trains_a=True,  # as under the default merge rule
)


def main() -> None:
    base = base_config("flan-t5-small")
    weights = t5_weights(base, SETTINGS.scope)
    run = RunInfo(
        protocol=PROTOCOL_VERSION,
        run_id="example",
        state="profiling",
        base=Base(model="flan-t5-small", digest="0" * 64),
        weights=weights,
        manifest=manifest_digest(weights),
        settings=SETTINGS,
        max_rank=16,
        server_rank=16,
        rounds=6,
        round=0,
        version=0,
    )
    board = Board(
        memory_bytes=1 << 30, memory_source="as this example says", cpu_count=4, machine="aarch64", bf16_fast=False
    )
    choice = choose(board, run, base)
    print("\n".join(explain(choice, board, [])))


if __name__ == "__main__":
    main()
