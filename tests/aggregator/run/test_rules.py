"""The run's merge rule: chosen by name, asked for everything, bound for the run's whole life."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator.errors import ConfigError, StateError
from aggregator.merge.rules import braid
from aggregator.merge.state import AdapterState


def deaf(state: AdapterState, *_: Any, **__: Any) -> AdapterState:
    """The next version of a rule that adds nothing."""
    return replace(state, version=state.version + 1)


async def test_a_run_merges_by_the_rule_that_it_names(
    make_folder: Any, start: Any, begin_training: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a rule of other functions under the same name, what boards send and are sent goes through those alone."""
    cut_ranks: list[tuple[int, ...]] = []
    rule = SimpleNamespace(
        TRAITS=braid.TRAITS,
        first_basis=braid.first_basis,
        cut=lambda state, ranks, dtype: (cut_ranks.append(tuple(ranks)), braid.cut(state, ranks, dtype))[1],
        fold=braid.fold,
        merge=deaf,
    )
    monkeypatch.setattr("aggregator.run.setup.RULES", {"braid": rule})
    server = await start(make_folder())
    boards = [await server.board("ada"), await server.board("bo")]
    for board, task in zip(boards, await begin_training(boards), strict=True):
        assert (await board.train(task)).accepted
    task = await boards[0].work(after=1)

    adapter = await boards[0].adapter(task.spec.version, 2)

    assert task.spec.version == 2 and cut_ranks == [(2,) * len(adapter.parts)]
    assert all(part.frozen_b.shape[1] == 0 for part in adapter.parts)


def test_an_unknown_rule_is_refused_before_there_is_a_run(make_folder: Any) -> None:
    """`init` names the rule and those that exist."""
    with pytest.raises(ConfigError) as caught:
        make_folder({"merge.rule": "mean"})

    assert "merge.rule = 'mean'" in caught.value.message and '"braid"' in caught.value.hint


async def test_a_run_keeps_its_rule(make_folder: Any, start: Any, stop: Any) -> None:
    """Once a board has enrolled, another rule stops the server with a sentence."""
    folder = make_folder()
    server = await start(folder)
    await server.board("ada")
    settings = json.loads(server.opened.store.fact("settings"))
    assert settings["merge.rule"] == "braid"
    server.opened.store.replace_fact("settings", json.dumps({**settings, "merge.rule": "mean"}))
    await stop(server)

    with pytest.raises(StateError, match=r"merge\.rule was 'mean'"):
        await start(folder)
