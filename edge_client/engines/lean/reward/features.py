"""Features of an answer for a reward model: means of the frozen encoder's output over the answer, and over what it
answers, where both are read together; and a few numbers that compare their words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from braid_common.text_form import TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.encoder_cache.encoder_pass import EncoderSpec, encode_sources
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.rewards.wording import N_NUMBERS, wording

MAX_SOURCE_TOKENS, MAX_ANSWER_TOKENS = 384, 128
"""Longest parts that are read, together the 512 tokens that T5 was pre-trained on. Of a longer source its end is read,
which an answer answers; of a longer answer its beginning."""

N_MEANS = 3
"""Of a feature vector: over the answer's tokens, over the source's, and the product of the two."""

_FORM = TextForm("", MAX_SOURCE_TOKENS, MAX_ANSWER_TOKENS, "start")


def reading(tokeniser: Tokeniser, source: str, answer: str) -> tuple[Source, int]:
    """The ids of a source and an answer to it, each ended by eos, and how many of them are the answer's."""
    ids = tokeniser.target(answer, MAX_ANSWER_TOKENS)
    return (*tokeniser.source(source, _FORM), *ids), len(ids)


def n_features(d_model: int) -> int:
    """How many features an answer has where the encoder's output is `d_model` wide."""
    return N_MEANS * d_model + N_NUMBERS


def features(
    spec: EncoderSpec,
    tokeniser: Tokeniser,
    answers: Sequence[tuple[str, str]],
    *,
    tell: Callable[[int, int], object] = lambda n_done, n_tokens: None,
    check_stop: Callable[[], object] = lambda: None,
    hidden_bytes: int,
) -> Tensor:
    """The features (answers, `n_features`) fp32 of answers, each with its source before it. Equal ones are read once.
    Raises BaseModelError as `encode_sources`, whose other arguments these are."""
    readings = [reading(tokeniser, source, answer) for source, answer in answers]
    lengths = dict(readings)
    by_ids: dict[Source, Tensor] = {}

    def store(ids: Source, hidden: Tensor) -> None:
        n_answer = lengths[ids]
        answer, source = hidden[-n_answer:].float().mean(0), hidden[:-n_answer].float().mean(0)
        by_ids[ids] = torch.cat([answer, source, answer * source])

    encode_sources(spec, list(lengths), store, tell=tell, check_stop=check_stop, hidden_bytes=hidden_bytes)
    means = torch.stack([by_ids[ids] for ids, _ in readings])
    return torch.cat([means, torch.tensor([wording(source, answer) for source, answer in answers])], 1)
