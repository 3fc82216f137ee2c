"""The coffee federation: what four boards make of a base on agents' steps, judged on dialogues that no board has."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from benchmarks.bar.score import Row, Score
from benchmarks.simulation.federation import Board, Federation
from benchmarks.simulation.session import SharedSession
from benchmarks.simulation.setting import Recipe
from benchmarks.simulation.strands import equal_ranks
from benchmarks.simulation.text_sets import read_clients, shared_out, subset
from braid_common.example import Example
from edge_client.engines.lean.contest import Contest
from edge_client.evaluation.answers import Answered
from edge_client.evaluation.metrics import METRICS, score

N_BOARDS, RANK = 4, 32
"""The boards have eight of the 32 scenarios each, and train every decoder weight at this rank."""

N_TRAIN, N_TEST = 1_500, 2_000
"""Steps of dialogues that a board trains on, and that the adapter is judged by: all that there are."""

RECIPE = Recipe(
    rule="weave",  # boards with memory for both factors at this rank; the default rule does as well at twice the rank
    learning_rate=0.005,
    seed=1,
    rounds=15,
    local_steps=20,
    batch=32,
    max_rank=RANK,
    server_rank=RANK,
    cooldown=0.5,
    max_source_tokens=320,
    max_target_tokens=64,
    truncate_source="start",
)
"""A dialogue needs its end, which says what to do next; a third of them are longer than 320 tokens."""

SPARE_BYTES = 1 << 30


def texts(folder: Path) -> tuple[list[list[Example]], list[Example]]:
    """Training text of each board, of scenarios of its own, and steps to judge by. Raises DataError where the files are
    not there."""
    boards = shared_out(read_clients(folder / "coffee.train.jsonl"), N_BOARDS, N_TRAIN)
    return boards, subset([example for _, example in read_clients(folder / "coffee.test.jsonl")], N_TEST, 0)


def measure(
    base_folder: Path, train: list[list[Example]], test: list[Example], folder: Path, recipe: Recipe = RECIPE
) -> list[Row]:
    """Run the federation on a base and judge its last adapter.

    Args:
        base_folder: packed or plain.
        train, test: as `texts` gives them.
        folder: for encoder outputs and messages, some 2 GB; best in memory.
        recipe: of the federation.
    """
    boards = [Board(tuple(text), (), partial(equal_ranks, rank=RANK)) for text in train]
    fleet = Federation(recipe, boards, folder, SharedSession(), base_folder)
    fleet.encode_texts()
    fleet.begin()
    for number in range(1, recipe.rounds + 1):
        fleet.run_round()
        print(f"coffee: round {number} of {recipe.rounds}", file=sys.stderr)
    job = fleet.evaluation(test, SharedSession())
    adapters, form = {"adapter": Path(job.adapter_path)}, job.run.settings.text_form
    answered = Contest(base_folder, adapters, form=form, spare_bytes=SPARE_BYTES).answers(test)
    return [*_calls(answered), *_calls([one for one in answered if not one.source_is_cut], " whose source was not cut")]


def _calls(answered: list[Answered], which: str = "") -> list[Row]:
    """The shares of calls with the right tool, and with the right arguments too."""
    sums = score(answered, 0)
    rows = []
    for name, metric in (("right tool", "tool_name"), ("exact call", "tool_arguments")):
        column = METRICS.index(metric)
        asked = sums.weights[:, column] > 0
        values = [float(value) for value in sums.values[asked, column]]
        rows.append((f"coffee, {name} of {len(values)} calls{which}", Score.of(values)))
    return rows
