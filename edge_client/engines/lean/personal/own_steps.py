"""Steps of their own: local strands are trained over a global adapter that is frozen, by one of six methods.

    method     the board's model, ΔW                 what is trained               paper
    pftt       G + B·A                               B, A, from round to round     PFTT, arXiv 2404.13238
    local      B·A                                   the same, with no fleet       the baseline of all of them
    finetune   G + B·A                               B, A from zero, at the end    arXiv 1910.10252
    ditto      G + B·A                               with λ/2·‖B·A‖² in the loss   Ditto, arXiv 2012.04221
    fedrep     G + B·A, B·A in the last blocks       B, A; G has none there        FedRep, arXiv 2102.07078
    apfl       α·B·A + (1 - α)·G                     B, A and α                    APFL, arXiv 2003.13461

G is the global adapter as the board received it. Ditto's term draws the board's model to the global one; here that
model is G + B·A, so that it moves along with G, where the paper's stays until the term has drawn it on. APFL's local
model begins at G. Its α is learnt as in the paper, by the gradient ⟨∂L/∂ΔW, B·A - G⟩, with Adam as everything here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from braid_common.seeds import derive_seed
from edge_client.engines.contract import Stopped
from edge_client.engines.lean.encoder_cache.reader import EncoderOutputs
from edge_client.engines.lean.encoder_cache.store import Source
from edge_client.engines.lean.evaluate import held_out_examples, held_out_loss
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_adapter
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import Model, start_training
from edge_client.engines.lean.ordered_text import OrderedText
from edge_client.engines.lean.personal.local_strands import (
    OwnStrands,
    learning_rate,
    look_for_own,
    start_strands,
    write_own,
)
from edge_client.engines.lean.personal.mixture import Mixture
from edge_client.engines.lean.session import Meter, Session, peaks, trains_encoder
from edge_client.errors import ConfigError
from edge_client.host.worker_memory import return_memory_near
from edge_client.jobs.messages import PersonalJob
from edge_client.state.personal_folder import strands_key
from wire.run import Personal


def train_own(job: PersonalJob, session: Session) -> dict[str, float]:
    """Train the board's own strands; loss (of the last step), personal_loss (held-out, of the board's model; absent
    without held-out text), mix (APFL's α), tokens_per_s, seconds, peak_bytes, and personal_lost, 1, where strands of
    before could not be read.

    The strands are written at the end, and where the session wants to stop, which raises Stopped. Raises ConfigError
    where the loss is not finite; the strands of before then stay.
    """
    own = _OwnSteps(job, session)
    n_steps = job.run.own_steps
    meter = Meter(session, "train", n_steps)
    for step in range(n_steps):
        loss, n_tokens = own.take(step)
        return_memory_near(job.plan.whole_peak_bytes, job.plan.budget_bytes)
        meter.count(step + 1, loss, n_tokens)
        session.wait()
        if session.wants_stop():
            own.keep()
            raise Stopped
    own.keep()
    return own.numbers() | {"tokens_per_s": meter.tokens_per_s, "seconds": meter.seconds} | peaks(own.model.device)


class _OwnSteps:
    """A model whose strands are the board's own, and what trains them."""

    def __init__(self, job: PersonalJob, session: Session) -> None:
        # Another order than that of the round's own steps, which have just read the same text.
        spec = msgspec.structs.replace(job.spec, seed=derive_seed(job.spec.seed, "own"))
        job = msgspec.structs.replace(job, spec=spec)
        assert isinstance(job.run.settings.personal, Personal)
        self._job, self._session, self._personal = job, session, job.run.settings.personal
        self._text = OrderedText(job, session, batch=job.run.settings.batch, steps=job.run.own_steps)
        self._outputs = EncoderOutputs(job, session)
        self._outputs.prepare(self._sources())
        received = read_adapter(Path(job.adapter_path), job.run, job.spec.version, job.ranks).product_factors()
        kept, self._is_lost = look_for_own(Path(job.personal_path), strands_key(job.run))
        strands = self._start(kept, received)
        method = self._personal.method
        frozen = {} if method == "local" else dict(received)
        if method == "apfl":
            frozen = {name: factors for name, factors in frozen.items() if name not in strands}
        self.model = self._model(frozen, strands)
        self._trained = start_training(self.model.linears)
        self._others = {name: f for name, f in (kept.strands if kept else {}).items() if self._is_elsewhere(name)}
        self._mixture: Mixture | None = None
        if method == "apfl":
            mix = self._personal.mix if kept is None or kept.mix is None else kept.mix
            ours = {name: self.model.linears[name] for name in strands}
            self._mixture = Mixture(ours, received, mix, learning_rate(job.run, job.spec.round))
        leaves = self._trained if self._mixture is None else self._mixture.leaves
        self._adam = Adam(leaves, learning_rate(job.run, job.spec.round))
        self._loss = 0.0

    def take(self, step: int) -> tuple[float, int]:
        """One optimiser step; its loss per target token, and the tokens that it read."""
        batches = self._text.batches(step, self.model.config.pad_id, self.model.config.start_id)
        if self._mixture is not None:
            self._mixture.put_on()
        loss_sum = 0.0
        for batch in batches:
            loss = self.model.loss_sum(batch, self._outputs.encoded(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += float(loss.detach())
        n_targets = sum(batch.n_target_tokens for batch in batches)
        if self._personal.method == "ditto":
            add_pull(self._trained, self._personal.pull * n_targets)
        if self._mixture is not None:
            self._mixture.take_gradients(n_targets)
        norm = self._adam.step(n_targets)
        self._loss = loss_sum / n_targets
        if not (abs(self._loss) < float("inf") and norm < float("inf")):
            raise ConfigError(
                f"local strands diverged at step {step + 1}: loss {self._loss}, gradient {norm}",
                "lower personal.learning_rate; the strands of before are kept",
            )
        return self._loss, n_targets + sum(batch.n_source_tokens for batch in batches)

    def keep(self) -> None:
        """Write the strands as they are now."""
        strands = {
            name: Factors(linear.b.detach().cpu(), linear.factors.a.cpu())
            for name, linear in self.model.linears.items()
            if linear.rank
        }
        mix = None
        if self._mixture is not None:
            strands, mix = self._mixture.strands(), self._mixture.mix
        own = OwnStrands({**self._others, **strands}, mix, is_alone=self._personal.method == "local")
        write_own(Path(self._job.personal_path), strands_key(self._job.run), own)

    def numbers(self) -> dict[str, float]:
        """Loss of the last step, held-out loss of the board's model, and what was learnt or lost beside."""
        values = {"loss": self._loss, "n_examples": float(self._text.n_distinct)}
        pairs = [self._text.tokenised(example) for example in held_out_examples(self._job, self._session)]
        if self._mixture is not None:
            self._mixture.put_on()
            values["mix"] = self._mixture.mix
        if pairs:
            loss, _ = held_out_loss(self.model, self._outputs, self._job, self._session, pairs)
            values["personal_loss"] = loss
        return values | ({"personal_lost": 1.0} if self._is_lost else {})

    def _start(self, kept: OwnStrands | None, received: Mapping[str, Factors]) -> dict[str, Factors]:
        """The strands to begin at: those of before, else drawn ones with a B of zero; APFL's at the global adapter."""
        before = dict(kept.strands) if kept is not None else {}
        if self._personal.method == "finetune":
            before = {}
        if self._personal.method == "apfl" and kept is None:
            before = dict(received)
        return start_strands(self._job.run, self._job.board_id, before, encoder=trains_encoder(self._job))

    def _is_elsewhere(self, name: str) -> bool:
        """Whether strands are of an encoder that this plan leaves alone: they are kept for another plan."""
        return name.startswith("encoder.") and not trains_encoder(self._job)

    def _model(self, frozen: Mapping[str, Factors], strands: Mapping[str, Factors]) -> Model:
        adapter = AdapterTensors(
            frozen, {name: f.a for name, f in strands.items()}, {name: f.b for name, f in strands.items()}
        )
        mode = self._job.plan.mode
        return Model(
            self._session.base(self._job),
            adapter,
            mode.compute,
            trains_encoder=trains_encoder(self._job),
            checkpointing=mode.checkpointing,
            trains="both",
        )

    def _sources(self) -> Iterator[Source]:
        yield from self._text.distinct_sources()
        for example in held_out_examples(self._job, self._session):
            yield self._text.tokenised(example).source


@torch.no_grad()
def add_pull(trained: Mapping[str, Tensor], weight: float) -> None:
    """Add the gradient of weight/2·Σ‖B·A‖² to those of strands named "b.NAME" and "a.NAME" (Ditto's proximal term, in
    the space of ΔW): weight·B·(A·Aᵀ) to B's and weight·(Bᵀ·B)·A to A's. No product m × n is formed."""
    for name, b in trained.items():
        if not name.startswith("b."):
            continue
        a = trained[f"a.{name.removeprefix('b.')}"]
        assert b.grad is not None and a.grad is not None
        b.grad.add_(b @ (a @ a.t()), alpha=weight)
        a.grad.add_((b.t() @ b) @ a, alpha=weight)
