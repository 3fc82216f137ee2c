"""A board's rewards as its owner configures them: which there are, and what each weighs.

They are read from `[[reward]]` tables of edge-client.toml and travel inside jobs to the worker. A server never sees
them. Loads no tensor library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta

from edge_client.errors import ConfigError
from wire.run import RunInfo

MAX_REWARDS = 16
"""Most rewards of one board: more of them cannot be weighed against each other by a person."""

MAX_WORDS = 1000
"""Longest list of words that are looked for in every answer."""

Seconds = Annotated[float, Meta(gt=0, le=3600)]
Weight = Annotated[float, Meta(ge=-1e6, le=1e6)]
Count = Annotated[int, Meta(ge=0, le=100_000)]
Phrase = Annotated[str, Meta(min_length=1, max_length=200)]
Phrases = Annotated[tuple[Phrase, ...], Meta(max_length=MAX_WORDS)]


class _Reward(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """Fields of every reward.

    Attributes:
        weight: what it counts for beside the others; below zero it is a price.
        name: what it is called in reports; "" for its kind.
        on_failure: where it gives no finite numbers, the round goes on without it ("skip") or ends ("stop").
    """

    weight: Weight = 1.0
    name: Annotated[str, Meta(max_length=40, pattern=r"^[A-Za-z0-9_-]*\Z")] = ""
    on_failure: Literal["skip", "stop"] = "skip"

    @property
    def title(self) -> str:
        """The name, or the kind where there is none."""
        return self.name or str(self.__struct_config__.tag)


class OverlapReward(_Reward, frozen=True, kw_only=True, tag="overlap"):
    """ROUGE-L with the nearest right answer, 0 to 1."""


class ToolCallReward(_Reward, frozen=True, kw_only=True, tag="tool_call"):
    """1 for a call of the right tools with the right arguments, a half for the right tools alone; where the right
    answer calls none, 1 for an answer that calls none either."""


class LengthReward(_Reward, frozen=True, kw_only=True, tag="length"):
    """1 for an answer of `at_least` to `at_most` words, less the farther it is from that."""

    at_least: Count = 0
    at_most: Annotated[int, Meta(ge=1, le=100_000)]


class WordsReward(_Reward, frozen=True, kw_only=True, tag="words"):
    """0 for an answer with a blocked phrase; else 1, where `allow` is given only with one of its phrases."""

    allow: Phrases = ()
    block: Phrases = ()


class ProgramReward(_Reward, frozen=True, kw_only=True, tag="program"):
    """The numbers of a program on this board: it reads a JSON object a line, and writes a number a line.

    Attributes:
        command: the program and its arguments; no shell reads it.
        timeout_s: it may take for the answers of one optimiser step.
    """

    command: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1, max_length=64)]
    timeout_s: Seconds = 30.0


class ModelReward(_Reward, frozen=True, kw_only=True, tag="model"):
    """The probability that people would approve of an answer, by the file that `edge-client reward fit` wrote."""

    path: Annotated[str, Meta(min_length=1)]


Reward = OverlapReward | ToolCallReward | LengthReward | WordsReward | ProgramReward | ModelReward
"""One reward of a board."""


def read_rewards(tables: object, source: Path) -> tuple[Reward, ...]:
    """The rewards of a file's `[[reward]]` tables, where paths begin at the file's folder.

    Raises ConfigError, which names `source` and what is wrong.
    """
    try:
        rewards: tuple[Reward, ...] = msgspec.convert(
            tables, Annotated[tuple[Reward, ...], Meta(max_length=MAX_REWARDS)]
        )
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{source}: [[reward]] is wrong: {error}", "see docs/guide/rewards.md for each kind"
        ) from error
    _check(rewards, source)
    return tuple(_with_whole_path(reward, source) for reward in rewards)


def _with_whole_path(reward: Reward, source: Path) -> Reward:
    if isinstance(reward, ModelReward):
        return msgspec.structs.replace(reward, path=str(source.absolute().parent / reward.path))
    return reward


def _check(rewards: Sequence[Reward], source: Path) -> None:
    titles = [reward.title for reward in rewards]
    for reward in rewards:
        if titles.count(reward.title) > 1:
            raise ConfigError(f"{source}: two rewards are called {reward.title!r}", "give each a name of its own")
        if not reward.weight:
            raise ConfigError(f"{source}: reward {reward.title} weighs nothing", "give it a weight, or remove it")
        if isinstance(reward, WordsReward) and not reward.allow and not reward.block:
            raise ConfigError(f"{source}: reward {reward.title} has no words", "write allow = [...] or block = [...]")
        if isinstance(reward, LengthReward) and reward.at_least > reward.at_most:
            raise ConfigError(
                f"{source}: reward {reward.title} wants at least {reward.at_least} words and at most {reward.at_most}",
                "swap them",
            )


def require_rewards(run: RunInfo, rewards: Sequence[Reward]) -> None:
    """Raise ConfigError where boards are to learn from rewards, and this one has none."""
    if run.settings.reward is not UNSET and not rewards:
        raise ConfigError(
            "the run learns from rewards, and this board has none",
            "write [[reward]] tables into its edge-client.toml, as docs/guide/rewards.md shows",
        )
