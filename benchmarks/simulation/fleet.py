"""A fleet of ten boards: a federation whose boards train every decoder weight, each at its own rank."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.simulation.deliveries import Deliveries
from benchmarks.simulation.federation import Board, Federation
from benchmarks.simulation.jobs import ChooseRanks, digest
from benchmarks.simulation.session import SharedSession
from benchmarks.simulation.setting import History, Point, Setting, board_ranks
from benchmarks.simulation.strands import equal_ranks, ranks_within
from benchmarks.simulation.texts import BoardText
from edge_client.errors import ClientError


def new_fleet(setting: Setting, texts: Sequence[BoardText], folder: Path, session: SharedSession) -> Federation:
    """A fleet that has not begun.

    Args:
        setting: which run.
        texts: one for each board.
        folder: best in memory; what is left in it serves later fleets of the same texts.
        session: may have served others.
    """
    boards = [
        Board(text.train, text.held_out, _ranks(setting, rank))
        for text, rank in zip(texts, board_ranks(setting), strict=True)
    ]
    return Federation(setting, boards, folder / digest(setting.seed, *texts), session)


def _ranks(setting: Setting, rank: int) -> ChooseRanks:
    if setting.n_values:
        return partial(ranks_within, n_parameters=setting.n_values)
    return partial(equal_ranks, rank=rank)


def begin(fleet: Federation) -> None:
    """Encode the fleet's texts and make its first basis."""
    fleet.encode_texts()
    fleet.begin()


def point(fleet: Federation) -> Point:
    """The losses of the whole global adapter, on each board's held-out text."""
    losses = tuple(fleet.evaluate(board.held_out, cached=True)["loss"] for board in fleet.boards)
    return Point(
        round=fleet.round,
        up_bytes=fleet.up_bytes,
        down_bytes=fleet.down_bytes,
        losses=losses,
        train_s=fleet.spent.job_s,
    )


def rouge_l(fleet: Federation, n_written: int) -> float:
    """F1 (0…1) of `n_written` greedily written texts of each board, their mean."""
    examples = [example for board in fleet.boards for example in board.held_out[:n_written]]
    return fleet.evaluate(examples, rouge=True, cached=True)["rougeL"]


def run_fleet(setting: Setting, texts: Sequence[BoardText], folder: Path, session: SharedSession) -> History:
    """The whole run, evaluated before the first round and after every `evaluate_every`.

    A run that diverges ends there, and says so.
    """
    start_s = time.process_time()
    fleet = new_fleet(setting, texts, folder, session)
    points, failed = [point(fleet)], ""
    try:
        for reached in _rounds(fleet, setting):
            points.append(reached)
        written = rouge_l(fleet, setting.n_written) if setting.n_written else None
    except (ClientError, ValueError) as error:  # numpy's LinAlgError is a ValueError
        failed, written = str(error), None
    return History(
        setting=setting,
        points=tuple(points),
        rouge_l=written,
        failed=failed,
        train_s=fleet.spent.job_s,
        merge_s=fleet.merge_s,
        cpu_s=time.process_time() - start_s,
    )


def _rounds(fleet: Federation, setting: Setting) -> Iterator[Point]:
    begin(fleet)
    deliveries = Deliveries(setting, fleet)
    for number in range(1, setting.rounds + 1):
        deliveries.run_round()
        if number % setting.evaluate_every == 0 or number == setting.rounds:
            yield point(fleet)
