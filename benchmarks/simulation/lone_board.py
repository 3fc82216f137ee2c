"""Studies of one board: settings that their runs share, the board's federation, and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from benchmarks.simulation import text_sets
from benchmarks.simulation.setting import OPEN_END, Recipe
from benchmarks.simulation.text_sets import TextSet

if TYPE_CHECKING:
    from benchmarks.simulation.federation import Federation
    from benchmarks.simulation.jobs import ChooseRanks

Part = Literal["validation", "test"]

VALIDATION_SEED = 0
"""Learning rates are chosen with it, on the validation part, which the test runs do not see."""


class BoardSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings that all runs of a study share.

    Attributes:
        max_source_tokens, max_target_tokens: what longer texts are cut to.
        learning_rates: the grid from which the best is taken on the validation part.
        seeds: of the test runs; they change the training subset, its order and the bases.
        n_train, n_validation, n_test: examples of each part, at most.
    """

    rounds: int
    local_steps: int
    batch: int
    max_source_tokens: int
    max_target_tokens: int
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    n_train: int
    n_validation: int
    n_test: int


class LoneBoard:
    """A board with one text set. Called in worker processes.

    Args:
        settings: the study's.
        name: of the text set.
        data_folder: where the published sets lie.
    """

    def __init__(self, settings: BoardSettings, name: str, data_folder: Path) -> None:
        self._settings = settings
        self._texts = _text_set(name, data_folder)

    def federation(self, folder: Path, choose: ChooseRanks, seed: int, **recipe: Any) -> Federation:
        """A federation of this board alone, which trains the ranks that `choose` gives; `recipe`: as in Recipe."""
        from benchmarks.simulation.federation import Board, Federation  # imports torch
        from benchmarks.simulation.session import process_session

        settings = self._settings
        text = tuple(text_sets.subset(self._texts.train, settings.n_train, seed))
        full = Recipe(
            seed=seed,
            rounds=OPEN_END,
            local_steps=settings.local_steps,
            batch=settings.batch,
            max_source_tokens=settings.max_source_tokens,
            max_target_tokens=settings.max_target_tokens,
            truncate_source=self._texts.cut,
            **recipe,
        )
        return Federation(full, [Board(text, (), choose)], folder, process_session())

    def evaluate(
        self, federation: Federation, part: Part, n_examples: int | None = None, *, rouge: bool = False
    ) -> Mapping[str, float]:
        """An evaluation of the global adapter on a part of the set, or on its first `n_examples`."""
        from benchmarks.simulation.session import judge_session  # imports torch

        settings, texts = self._settings, self._texts
        examples = texts.test[: settings.n_test] if part == "test" else texts.validation[: settings.n_validation]
        return federation.evaluate(examples[:n_examples], session=judge_session(), rouge=rouge)


@cache
def _text_set(name: str, data_folder: Path) -> TextSet:
    return text_sets.load(name, data_folder)
