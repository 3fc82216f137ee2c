"""Learning from rewards: the objective of a round in which a board judges what its model writes.

    sample G answers to each example → judge → advantages within each group → policy gradient, kept near the adapter
    that was received

An answer that was written is a target like any other: micro-batches, encoder outputs, sketches and uploads are those of
ordinary training. Losses are means over the tokens of a step, as everywhere in this engine, and not over answers first
as in GRPO's paper: a long answer then counts for its tokens (DAPO, arXiv 2503.14476, equation 8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from braid_common.example import Example
from braid_common.seeds import derive_seed
from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.model.batches import Batch, micro_batches, source_batch
from edge_client.engines.lean.model.greedy import write_at_random
from edge_client.engines.lean.model.model import DTYPES
from edge_client.engines.lean.reward.policy_loss import distances, policy_losses
from edge_client.engines.lean.reward.received import ReceivedFactors
from edge_client.engines.lean.reward.rollout import Rollout, SavedRollout
from edge_client.engines.lean.round import StepLoss, TrainingRound
from edge_client.engines.lean.session import Session
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import TrainJob
from edge_client.jobs.sizes import answers_at_once
from edge_client.rewards.advantages import advantages
from edge_client.rewards.answer import JudgedAnswer
from edge_client.rewards.panel import Panel
from wire.run import RewardLearning


class RewardObjective:
    """Computes the gradients of a round's steps in place of `TrainingRound.backward`. To be made before the round is
    prepared, while its factors are those that were received; `panel` judges."""

    def __init__(self, job: TrainJob, session: Session, training: TrainingRound, panel: Panel) -> None:
        learning = job.run.settings.rewards_in(job.spec.round)
        assert learning is not None, "the round learns from right answers"
        self._learning: RewardLearning = learning
        self._job, self._session, self._training, self._panel = job, session, training, panel
        self._model = training.model
        self._tokeniser = session.tokeniser(job)
        self._received = ReceivedFactors(self._model.linears) if learning.kl else None
        self._rollout: Rollout | None = None
        self._saved: SavedRollout | None = None
        if learning.reuse > 1:
            settings = job.run.settings
            self._saved = SavedRollout(settings.batch * learning.samples, settings.max_target_tokens)
            training.save_with({f"rollout.{name}": tensor for name, tensor in self._saved.tensors.items()})

    def backward(self, step: int) -> StepLoss:
        """Add up the gradients of a step in the factors and the sketches. Its `StepLoss` is the negative log-likelihood
        of what was written, as the policy that is trained sees it: near 0 it writes the same answer every time.

        Raises ConfigError where a reward fails that the round cannot do without.
        """
        rollout = self._rollout_of(step)
        n_examples = self._job.run.settings.batch
        surprise, n_source_tokens, distance = 0.0, 0, 0.0
        for first, batch in self._batches(rollout):
            self._training.start_pass(step * n_examples + first // self._learning.samples)
            losses = self._model.token_losses(batch, self._training.encoder_outputs.encoded(batch))
            rows = slice(first, first + batch.source.shape[0])
            reference = _joined(rollout.reference[rows], losses)
            self._policy_losses(rollout, rows, -losses, reference).sum().backward()  # type: ignore[no-untyped-call]
            self._training.end_pass(batch.n_target_tokens)
            surprise += float(losses.detach().sum(dtype=torch.float64))
            n_source_tokens += batch.n_source_tokens
            if reference is not None:
                distance += float(distances(-losses.detach(), reference).sum(dtype=torch.float64))
        if self._received is not None:
            self._training.add_up("kl", distance / rollout.n_tokens)
        return StepLoss(surprise, n_source_tokens, rollout.n_tokens)

    def _policy_losses(self, rollout: Rollout, rows: slice, likelihood: Tensor, reference: Tensor | None) -> Tensor:
        lengths = [len(answer.target) for answer in rollout.answers[rows]]
        each = torch.tensor(rollout.advantages[rows]).repeat_interleave(torch.tensor(lengths))
        old = _joined(rollout.old[rows], likelihood)
        return policy_losses(
            likelihood,
            likelihood.detach() if old is None else old,
            reference,
            each.to(likelihood.device),
            clip=self._learning.clip,
            kl=self._learning.kl,
        )

    # --- answers and rewards ---------------------------------------------------------------------------------------

    def _rollout_of(self, step: int) -> Rollout:
        """The answers that a step learns from: new ones every `reuse` steps."""
        nth, age = divmod(step, self._learning.reuse)
        if age == 0:
            self._rollout = self._new_rollout(nth)
            if self._saved is not None:
                self._saved.keep(self._rollout)
        elif self._rollout is None:  # the round goes on in the middle
            assert self._saved is not None
            sources = [pair.source for pair in self._asked(nth)]
            self._rollout = self._saved.read(sources, has_reference=self._received is not None)
        return self._rollout

    def _new_rollout(self, nth: int) -> Rollout:
        examples = self._training.text.step_examples(nth)
        answers = self._written(self._asked(nth), nth)
        rewards = self._judged(examples, answers)
        return Rollout(
            answers,
            tuple(advantages(rewards, self._learning.samples, self._learning.advantage)),
            tuple(self._likelihoods(answers)) if self._learning.reuse > 1 else (),
            tuple(self._likelihoods(answers, self._received)) if self._received is not None else (),
        )

    def _asked(self, nth: int) -> list[Pair]:
        """The examples of a rollout, each as often as it is answered."""
        return [pair for pair in self._training.pairs(nth) for _ in range(self._learning.samples)]

    def _written(self, asked: Sequence[Pair], nth: int) -> tuple[Pair, ...]:
        """Answers that the policy as it is now draws, as many side by side as ANSWERS_BYTES hold."""
        generator = torch.Generator().manual_seed(
            derive_seed(self._job.spec.seed, "answers", self._job.spec.round, self._job.board_id, nth)
        )
        spare_bytes = max(0, self._job.plan.budget_bytes - max(resident_bytes(), self._job.plan.whole_peak_bytes))
        n_most, value_bytes = self._job.run.settings.max_target_tokens, DTYPES[self._job.plan.mode.compute].itemsize
        written: list[Pair] = []
        with self._model.unpacked_decoder(spare_bytes):
            while len(written) < len(asked):
                self._check_stop()
                longest = max(len(pair.source) for pair in asked[len(written) :])
                size = answers_at_once(self._model.config, longest, n_most, value_bytes)
                sources = [pair.source for pair in asked[len(written) : len(written) + size]]
                batch = source_batch(sources, self._model.config.pad_id)
                encoded = self._training.encoder_outputs.encoded_sources(sources, batch[0].shape[1])
                each = write_at_random(self._model, *batch, n_most, generator, encoded)
                written += [Pair(source, tuple(ids)) for source, ids in zip(sources, each, strict=True)]
        return tuple(written)

    def _check_stop(self) -> None:
        """Wait or stop as the session wants; what was trained up to the step before is saved."""
        if self._session.wants_stop():
            self._training.save(now=True)
        self._session.check_stop()

    def _judged(self, examples: Sequence[Example], answers: Sequence[Pair]) -> tuple[float, ...]:
        """The weighted rewards of the answers, whose means the round's numbers get."""
        samples = self._learning.samples
        scores = self._panel(
            [
                self._to_judge(examples[i // samples], self._tokeniser.decode(answer.target))
                for i, answer in enumerate(answers)
            ]
        )
        for title, values in {"": scores.total, **{f"_{title}": each for title, each in scores.each.items()}}.items():
            self._training.add_up(f"reward{title}", sum(values) / len(values))
        failed = self._panel.failed.items()
        self._session.left_out = "; ".join(f"reward {title} is left out of this round: {why}" for title, why in failed)
        for title in self._panel.failed:
            self._training.add_up(f"reward_lost_{title}", 1.0)
        return scores.total

    def _to_judge(self, example: Example, text: str) -> JudgedAnswer:
        writable = tuple(map(self._tokeniser.writable, example.targets))
        return JudgedAnswer(example.source, example.targets, writable, text)

    # --- likelihoods -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _likelihoods(self, answers: Sequence[Pair], factors: ReceivedFactors | None = None) -> Iterator[Tensor]:
        """Log-likelihood (tokens,) of each answer's tokens, by the policy as it is now or with other factors."""
        with nullcontext() if factors is None else factors.in_place():
            for _, batch in self._batches(Rollout(tuple(answers), ())):
                losses = self._model.token_losses(batch, self._training.encoder_outputs.encoded(batch))
                lengths = (batch.labels >= 0).sum(1).tolist()
                yield from torch.split((-losses).cpu(), lengths)

    def _batches(self, rollout: Rollout) -> Iterator[tuple[int, Batch]]:
        """The answers in the plan's micro-batches, each with the place of its first."""
        config, size = self._model.config, self._job.plan.mode.micro_batch
        batches = micro_batches(rollout.answers, size, config.pad_id, config.start_id)
        return ((i * size, batch) for i, batch in enumerate(batches))


def _joined(rows: Sequence[Tensor], like: Tensor) -> Tensor | None:
    """Numbers of several answers behind each other, where `like` is; None where there are none."""
    return torch.cat(tuple(rows)).to(like.device) if rows else None
