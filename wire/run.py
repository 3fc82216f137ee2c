"""A run as every board must know it: its base, the weights that may be trained, and how boards train them."""

from __future__ import annotations

from collections.abc import Sequence
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

MAX_NESTED = 8
"""Most nested ranks: each is half the one before, and of the largest rank that the wire takes the eighth is 2."""

Target = Literal["q", "k", "v", "o", "wi_0", "wi_1", "wo"]
"""The last part of a weight's name."""

KeepImportance = Literal["fisher", "scores"]

Method = Literal["pftt", "local", "finetune", "ditto", "fedrep", "apfl"]
"""How a board's model comes of local strands and the global adapter; docs/guide/personal.md has paper and formula of
each."""

When = Literal["beside", "after"]
"""When local strands are trained: in the steps of the global ones, or in steps of their own."""

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
    def decoder_block(self) -> int:
        """The number of its block in the decoder; -1 for the encoder's."""
        return -1 if self.is_encoder else int(self.name.split(".")[2])

    @property
    def reads_source(self) -> bool:
        """Whether it multiplies source tokens: all of the encoder, and keys and values of cross-attention."""
        return self.is_encoder or self.name.endswith((".EncDecAttention.k", ".EncDecAttention.v"))


class Personal(Message, frozen=True, kw_only=True, omit_defaults=True):
    """Local strands: LoRA pairs of one board alone, trained on top of the global adapter and never sent (PFTT, arXiv
    2404.13238). The run asks every board for them, or a board asks itself."""

    rank: Annotated[int, Meta(ge=0, le=MAX_RANK)]  # local strands of a weight; 0: this board has none
    method: Method = "pftt"  # how they and the global adapter make up the board's model
    targets: Annotated[tuple[Target, ...], Meta(max_length=7)] = ()  # weights that have them; none named: all trained
    learning_rate: NonNegative = 0.0  # 0: that of the global strands
    when: When = "beside"  # trained in the steps of the global strands, or after these in steps of their own
    steps: Annotated[int, Meta(ge=0, le=100_000)] = 0  # of their own, a round; 0: as many as the global strands have
    pull: NonNegative = 0.1  # ditto: λ of the term that draws the board's model to the global one
    mix: Annotated[float, Meta(ge=0, le=1)] = 0.5  # apfl: the local share of the board's model before it is learnt
    local_blocks: Annotated[int, Meta(ge=0, le=1024)] = 0  # fedrep: so many last blocks of the decoder are local

    def ranks(self, weights: Sequence[Weight]) -> tuple[int, ...]:
        """Local strands of each of these weights."""
        unshared = self.unshared(weights)
        return tuple(
            min(self.rank, weight.rows, weight.columns)
            if (not self.targets or weight.name.rsplit(".", 1)[-1] in self.targets)
            and (self.method != "fedrep" or weight.name in unshared)
            else 0
            for weight in weights
        )

    def unshared(self, weights: Sequence[Weight]) -> frozenset[str]:
        """Weights whose global strands the board does not train: under FedRep those of the last blocks of the decoder,
        which are its head (arXiv 2102.07078)."""
        if self.method != "fedrep" or not self.rank:
            return frozenset()
        blocks = {weight.name: weight.decoder_block for weight in weights}
        first = max(blocks.values(), default=-1) + 1 - self.local_blocks
        return frozenset(name for name, block in blocks.items() if block >= max(first, 0))

    @property
    def is_beside(self) -> bool:
        """Whether local strands are there in the steps of the global ones: trained, or lying still as FedRep's head."""
        return not self.has_steps_of_own or self.method == "fedrep"

    @property
    def has_steps_of_own(self) -> bool:
        """Whether local strands are trained in steps of their own, over a global adapter that is frozen."""
        return self.when == "after" or self.method in ("local", "finetune", "ditto", "apfl")


class Keep(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A penalty on how far a board moves what matters to the received model (FedJudge, arXiv 2309.08173)."""

    weight: Positive  # λ, beside a mean loss per target token
    importance: KeepImportance = "fisher"  # what matters: by the board's own first gradients, or by the run's ranking


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
    keep: Keep | UnsetType = UNSET  # holds a board near the received model; left out where nothing does
    cooldown: Annotated[float, Meta(gt=0, le=1)] | UnsetType = UNSET  # share of the rounds, the last, whose rate falls
    nested: Annotated[int, Meta(ge=2, le=MAX_NESTED)] | UnsetType = UNSET  # how many nested ranks a pass draws from
    personal: Personal | UnsetType = UNSET  # strands of each board alone, never sent; left out where there are none
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

    def learning_rate_in(self, round_id: int) -> float:
        """The step size of a round: the run's, or in its last rounds (`settings.cooldown`) n/(n+1), …, 1/(n+1) of it. A
        falling rate takes the noise of large steps out again (warmup, stable, decay: arXiv 2405.18392)."""
        settings = self.settings
        if settings.cooldown is UNSET:
            return settings.learning_rate
        n_falling = int(settings.cooldown * self.rounds)
        n_left = max(1, self.rounds - round_id + 1)  # this one too; a run that goes on past its end stays where it was
        return settings.learning_rate * min(1.0, n_left / (n_falling + 1))

    @property
    def local_ranks(self) -> tuple[int, ...]:
        """Strands of each weight that a board has for itself, in manifest order."""
        personal = self.settings.personal
        return personal.ranks(self.weights) if isinstance(personal, Personal) else (0,) * len(self.weights)

    @property
    def own_steps(self) -> int:
        """Optimiser steps of a round that local strands have to themselves."""
        personal = self.settings.personal
        if not isinstance(personal, Personal) or not personal.rank or not personal.has_steps_of_own:
            return 0
        return personal.steps or self.settings.local_steps
