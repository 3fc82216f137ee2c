"""A run as every board must know it: its base, the weights that may be trained, and how boards train them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from braid_common.text_form import DEFAULT_PREFIX, Cut, TextForm
from wire.fields import (
    ChainValue,
    Commit,
    Count,
    Digest,
    Dtype,
    Message,
    Name,
    NonNegative,
    Positive,
    Prefix,
    Rank,
    RoundId,
    Side,
    Tokens,
)
from wire.limits import MAX_RANK, MAX_WEIGHTS

Scope = Literal["decoder", "all"]
Importance = Literal["sketch", "adalora", "magnitude_gradient"]
Advantage = Literal["group", "baseline"]

MAX_SAMPLES = 64
"""Most answers to one example that a board is asked to write: GRPO's own number, and each costs as much as an example
of ordinary training, and its writing besides."""

MAX_REUSE = 16
"""Most optimiser steps on the same answers: clipping lets hardly any of them move further after that."""

LONGEST_CHOSEN_SOURCE_TOKENS, LONGEST_CHOSEN_TARGET_TOKENS = 512, 128
"""Longest texts of a run whose server chooses the lengths. T5 was pre-trained to read 512 tokens (arXiv 1910.10683) and
to write 114, which is what its span corruption leaves of them; and a board's memory for a step grows with both. Whoever
wants longer texts says so."""


class Weight(Message, frozen=True, kw_only=True):
    """A weight of the base that may be trained: W is `rows` (out) × `columns` (in)."""

    name: Name
    rows: Side
    columns: Side

    @property
    def is_encoder(self) -> bool:
        """Whether it belongs to the encoder."""
        return self.name.startswith("encoder.")

    @property
    def reads_source(self) -> bool:
        """Whether it multiplies source tokens: all of the encoder, and keys and values of cross-attention."""
        return self.is_encoder or self.name.endswith((".EncDecAttention.k", ".EncDecAttention.v"))


class RewardLearning(Message, frozen=True, kw_only=True):
    """How boards learn from rewards (GRPO, arXiv 2402.03300). Which rewards is each board's own to say: none is named
    here, and none comes from a server."""

    samples: Annotated[int, Meta(ge=2, le=MAX_SAMPLES)] = 4  # answers to each example, which are compared
    advantage: Advantage = "group"  # less the group's mean, by its deviation; or less the mean of the other answers
    kl: Annotated[float, Meta(ge=0, le=100)] = 0.05  # weight of the distance to the received adapter
    clip: Annotated[float, Meta(gt=0, le=1)] = 0.2  # how far a token's probability ratio counts
    reuse: Annotated[int, Meta(ge=1, le=MAX_REUSE)] = 1  # optimiser steps on the same answers
    warm_rounds: RoundId = 0  # first rounds of the run, which learn from the right answers as other runs do


class TrainSettings(Message, frozen=True, kw_only=True):
    """How every board trains. Declarative: a server ships no code."""

    scope: Scope
    learning_rate: Positive
    batch: Annotated[int, Meta(ge=1, le=4096)]  # examples per optimiser step
    micro_batch: Annotated[int, Meta(ge=1, le=4096)]  # examples per backward pass; a plan may lower it
    local_steps: Annotated[int, Meta(ge=1, le=100_000)]  # optimiser steps per round
    max_source_tokens: Tokens  # prefix and eos included; 0: the server has yet to choose, from what boards report
    max_target_tokens: Tokens  # eos included; 0 as above
    prefix: Prefix = DEFAULT_PREFIX  # words before every source, never cut
    truncate_source: Cut = "end"  # the part of a longer source that is left out
    sketch_batches: Annotated[int, Meta(ge=1, le=1024)]  # micro-batches that feed a gradient sketch
    upload: Dtype = "bf16"  # dtype of the factors that boards send
    importance: Importance = "sketch"  # what a weight is worth: by its gradient sketch, or by a score of the profiles
    rank: Rank = 0  # of every weight on every board, where the merge rule needs equal ranks; 0: what memory allows
    trains_a: bool = False  # some round trains A as well, whose gradient needs memory
    own_basis: bool = False  # each board draws its own A, and is sent none
    pruning: bool = False  # boards give up trailing strands that training shrinks (HetLoRA)
    seed: Count = 0
    reward: RewardLearning | UnsetType = UNSET  # unset, and absent from the message: boards learn from right answers

    def rewards_in(self, round_id: int) -> RewardLearning | None:
        """How that round learns from rewards; None where it learns from right answers."""
        if self.reward is UNSET or round_id <= self.reward.warm_rounds:
            return None
        return self.reward

    @property
    def has_lengths(self) -> bool:
        """Whether both lengths are known. Nothing is planned before."""
        return self.max_source_tokens > 0 and self.max_target_tokens > 0

    @property
    def with_longest(self) -> TrainSettings:
        """The settings with the longest lengths that the server may choose, where it has yet to choose them."""
        return msgspec.structs.replace(
            self,
            max_source_tokens=self.max_source_tokens or LONGEST_CHOSEN_SOURCE_TOKENS,
            max_target_tokens=self.max_target_tokens or LONGEST_CHOSEN_TARGET_TOKENS,
        )

    @property
    def text_form(self) -> TextForm:
        """The form in which boards meet their texts; as of `with_longest`."""
        known = self.with_longest
        return TextForm(self.prefix, known.max_source_tokens, known.max_target_tokens, self.truncate_source)


class Base(Message, frozen=True, kw_only=True):
    """The frozen base model: the name people type, its commit where that is a hub id, and what must be equal on both
    sides."""

    model: Name
    digest: Digest
    revision: Commit = ""


class RunInfo(Message, frozen=True, kw_only=True):
    """`GET /v1/run`: all that a board must know to plan. `values[w][i]` is what strand i of weight w is worth, by
    `settings.importance` (w in manifest order); empty before the first basis exists."""

    protocol: int
    run_id: Name
    state: Literal["profiling", "training", "finished"]
    base: Base
    weights: Annotated[tuple[Weight, ...], Meta(min_length=1, max_length=MAX_WEIGHTS)]
    manifest: Digest
    settings: TrainSettings
    max_rank: Annotated[int, Meta(ge=1, le=MAX_RANK)]  # rows of every shared basis
    server_rank: Annotated[int, Meta(ge=1, le=MAX_RANK)]  # rank of the frozen factors, at most
    rounds: RoundId  # how many the run has
    round: RoundId  # the open one, else the last that closed
    version: RoundId  # the newest
    history: ChainValue = ""  # of all versions up to that one (`wire.proof`); empty where the server keeps none
    values: Annotated[
        tuple[Annotated[tuple[NonNegative, ...], Meta(max_length=MAX_RANK)], ...], Meta(max_length=MAX_WEIGHTS)
    ] = ()
