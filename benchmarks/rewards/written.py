"""The answers of an adapter to contexts that no board has trained on: how they are judged, and how far it has moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch

from aggregator.merge.state import AdapterState
from benchmarks.rewards.runs import Judged
from benchmarks.simulation.federation import Federation
from benchmarks.simulation.session import SharedSession
from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.tokeniser import Pair, Tokeniser
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import micro_batches, source_batch
from edge_client.engines.lean.model.greedy import write_at_random, write_greedily
from edge_client.engines.lean.model.model import DTYPES, Model
from edge_client.engines.lean.reward.policy_loss import distances
from edge_client.jobs.messages import EvaluateJob
from edge_client.jobs.reward_spec import ModelReward, Reward
from edge_client.jobs.sizes import answers_at_once
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.panel import Judge, Panel

SCORED_AT_ONCE = 16
"""Answers of one forward pass that measures how likely they are."""

UNPACKED_BYTES = 64 << 20
"""For the decoder's weights as plain numbers: all of them, in the builtin base."""


class Examiner:
    """Judges adapters of a federation by the same contexts and rewards.

    Args:
        contexts: the examples.
        rewards: what answers are judged by; none of them needs the base.
        samples: answers that are drawn to each context.
        session: one that keeps its own base.
        seed: of the draws.
    """

    def __init__(
        self, contexts: Sequence[Example], rewards: Sequence[Reward], samples: int, session: SharedSession, seed: int
    ) -> None:
        self._contexts, self._samples, self._seed = list(contexts), samples, seed
        self._rewards, self._session = tuple(rewards), session

    def __call__(self, fleet: Federation, reference: AdapterState | None = None) -> Judged:
        """Judge the fleet's global adapter; `reference`: the state from which the distance is measured."""
        loss = fleet.evaluate(self._contexts, session=self._session, cached=True)["loss"]
        job = fleet.evaluation(self._contexts, self._session)
        tokeniser, form = self._session.tokeniser(job), job.run.settings.text_form
        sources = [tokeniser.pair(example, form).source for example in self._contexts]
        model = self._model(job)
        outputs = EncoderOutputs(job, self._session)
        outputs.prepare(sources)
        with model.unpacked_decoder(UNPACKED_BYTES):
            likeliest = self._written(model, outputs, job, sources, drawn=False)
            asked = [source for source in sources for _ in range(self._samples)]
            drawn = self._written(model, outputs, job, asked, drawn=True)
        greedy, greedy_words = self._means(likeliest, tokeniser)
        sampled, sampled_words = self._means(drawn, tokeniser)
        return Judged(
            greedy=greedy,
            sampled=sampled,
            greedy_words=greedy_words,
            sampled_words=sampled_words,
            kl=0.0 if reference is None else self._distance(fleet, reference, model, outputs, drawn),
            loss=loss,
        )

    def _model(self, job: EvaluateJob) -> Model:
        adapter = read_adapter(Path(job.adapter_path), job.run, job.spec.version, None)
        return Model(self._session.base(job), adapter, job.plan.mode.compute)

    def _written(
        self, model: Model, outputs: EncoderOutputs, job: EvaluateJob, sources: Sequence[Source], *, drawn: bool
    ) -> list[Pair]:
        """An answer to each source."""
        n_most = job.run.settings.max_target_tokens
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "examined"))
        size = answers_at_once(model.config, max(map(len, sources)), n_most, DTYPES[job.plan.mode.compute].itemsize)
        answers: list[Pair] = []
        for first in range(0, len(sources), size):
            part = sources[first : first + size]
            ids, mask = source_batch(part, model.config.pad_id)
            encoded = outputs.encoded_sources(part, ids.shape[1])
            if drawn:
                each = write_at_random(model, ids, mask, n_most, generator, encoded)
            else:
                each = write_greedily(model, ids, mask, n_most, encoded)
            answers += [Pair(source, tuple(written)) for source, written in zip(part, each, strict=True)]
        return answers

    def _means(self, answers: Sequence[Pair], tokeniser: Tokeniser) -> tuple[dict[str, float], float]:
        """The mean of each reward, and of the words, over as many answers to each context."""
        n_each = len(answers) // len(self._contexts)
        texts = [tokeniser.decode(answer.target) for answer in answers]
        to_judge = []
        for i, text in enumerate(texts):
            example = self._contexts[i // n_each]
            writable = tuple(map(tokeniser.writable, example.targets))
            to_judge.append(JudgedAnswer(example.source, example.targets, writable, text))
        scores = Panel(self._rewards, _no_model)(to_judge)
        return {title: fmean(values) for title, values in scores.each.items()}, fmean(len(t.split()) for t in texts)

    @torch.no_grad()
    def _distance(
        self, fleet: Federation, reference: AdapterState, model: Model, outputs: EncoderOutputs, answers: Sequence[Pair]
    ) -> float:
        """The mean over tokens of the distance that the objective counts, of a model's own answers."""
        before, fleet.state = fleet.state, reference
        other = self._model(fleet.evaluation(self._contexts, self._session))
        fleet.state = before
        total, n_tokens = 0.0, 0
        for batch in micro_batches(answers, SCORED_AT_ONCE, model.config.pad_id, model.config.start_id):
            encoded = outputs.encoded(batch)
            here, there = -model.token_losses(batch, encoded), -other.token_losses(batch, encoded)
            total += float(distances(here, there).sum(dtype=torch.float64))
            n_tokens += batch.n_target_tokens
        return total / n_tokens


def _no_model(reward: ModelReward) -> Judge:
    raise NotImplementedError(f"{reward.title} needs the base, which an examiner has not loaded")
