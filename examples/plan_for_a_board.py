"""Planning for a board that is not at hand: what would one with 1 GiB train of FLAN-T5-small?

    python examples/plan_for_a_board.py

Neither weights nor torch are needed: memory and operations follow from shapes.
"""

from __future__ import annotations

from edge_client.base.config import base_config
from edge_client.host.board import Board
from edge_client.plan.choose import choose
from edge_client.plan.explain import explain
from edge_client.plan.situation import Situation
from wire.default_run import DEFAULT_SETTINGS, run_info
from wire.manifest import t5_weights


def main() -> None:
    base = base_config("flan-t5-small")
    board = Board(
        memory_bytes=1 << 30,
        memory_source="as this example says",
        cpu_count=4,
        machine="aarch64",
        bf16_fast=False,
    )
    run = run_info(t5_weights(base, DEFAULT_SETTINGS.scope), model="flan-t5-small")
    choice = choose(Situation(board, run, base))
    print("\n".join(explain(choice, board, [])))


if __name__ == "__main__":
    main()
