"""One training step that is run again and again, profiled by kind of work and with and without sketches."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.gradients.sketches import TURNS, Sketches
from edge_client.engines.lean.model.adam import Adam
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.model import DTYPES, Model, start_training
from edge_client.jobs.messages import Compute
from edge_client.jobs.sizes import VOCABULARY_ROWS
from quantize.base import load_base
from wire.manifest import t5_weights
from wire.run import Scope

BATCH, SOURCE_TOKENS, TARGET_TOKENS, RANK, SKETCH_RANK = 4, 512, 64, 8, 16
WARM_UP_STEPS, STEPS = 3, 4

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_"),
    "attention products": ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "softmax, its gradient": ("aten::_softmax", "aten::_softmax_backward_data"),
    "gelu, its gradient": ("aten::gelu", "aten::gelu_backward"),
    "copies and changes of dtype": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::index_select"),
}
"""Operators by kind; what is not named here is element-wise work and small things."""


class Step:
    """One micro-batch, trained on again and again."""

    def __init__(self, folder: Path, format: str, compute: Compute, scope: Scope) -> None:
        decoder_only = scope == "decoder"
        base = load_base(folder, format, wanted=lambda name: not (decoder_only and name.startswith("encoder.")))
        generator = torch.Generator().manual_seed(0)
        weights = t5_weights(base.config, scope)
        basis = {
            weight.name: torch.randn(RANK, weight.columns, generator=generator) * weight.columns**-0.5
            for weight in weights
        }
        self._model = Model(base, AdapterTensors(basis=basis), compute, trains_encoder=not decoder_only)
        trained = start_training(self._model.linears)
        self._sketches = Sketches(weights, SKETCH_RANK, 0, torch.device("cpu"), TURNS)
        self._next_turn = 0
        self._sketched = False
        self._adam = Adam(trained, 1e-4)
        self._batch = _batch(generator)
        shape = (BATCH, SOURCE_TOKENS, base.config.d_model)
        self._encoded = torch.randn(shape, generator=generator).to(DTYPES[compute]) if decoder_only else None

    def sketch(self, wanted: bool) -> None:
        """Take sketches in the following steps, turn by turn as a round does, or none."""
        self._sketched = wanted

    def run(self) -> dict[str, float]:
        """Seconds of processor time of the backward pass, and of the step."""
        turn = self._next_turn
        if self._sketched:
            self._sketches.attach(self._model.linears, turn)
            self._next_turn = (turn + 1) % TURNS
        else:
            for linear in self._model.linears.values():
                linear.sketch = None
        start_s = time.process_time()
        loss = self._model.loss_sum(self._batch, self._encoded)
        backward_s = time.process_time()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._sketched:
            self._sketches.count(self._batch.n_target_tokens, turn)
        end_s = time.process_time()
        self._adam.step(self._batch.n_target_tokens)
        return {"backward": end_s - backward_s, "step": time.process_time() - start_s}


def _batch(generator: torch.Generator) -> Batch:
    """A micro-batch of random tokens without padding."""

    def ids(n_tokens: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 32_000, (n_tokens,), generator=generator).tolist())

    return collate([Pair(ids(SOURCE_TOKENS), ids(TARGET_TOKENS)) for _ in range(BATCH)], pad_id=0, start_id=0)


def _kind(operator: str) -> str:
    return next((kind for kind, names in KINDS.items() if operator in names), "element-wise and the rest")


def measure(step: Step) -> tuple[dict[str, float], float]:
    """Milliseconds of a step by kind of work, the head's matrix products apart, and in all."""
    for _ in range(WARM_UP_STEPS):
        step.run()
    timetable = schedule(wait=0, warmup=WARM_UP_STEPS, active=STEPS, repeat=1)  # its own first steps are slow
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, schedule=timetable) as profiler:
        for _ in range(WARM_UP_STEPS + STEPS):
            step.run()
            profiler.step()
    spent: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages(group_by_input_shape=True):
        of_head = event.key == "aten::mm" and any(VOCABULARY_ROWS in shape for shape in event.input_shapes)
        spent["products of the head" if of_head else _kind(event.key)] += event.self_cpu_time_total / 1e3 / STEPS
    return dict(spent), sum(spent.values())


def sketch_cost(step: Step, n_pairs: int) -> list[tuple[str, float, float, float]]:
    """The cost of sketches: for the backward pass and for the step, seconds without and with them, and the share added.

    The seconds are medians; the share is the median over pairs of neighbouring steps, for the machine's speed drifts.
    """
    times_of: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(WARM_UP_STEPS + n_pairs):
        for wanted, times in times_of.items():
            step.sketch(wanted)
            times.append(step.run())
    costs = []
    for part in times_of[False][0]:
        plain, sketched = ([times[part] for times in times_of[wanted][WARM_UP_STEPS:]] for wanted in (False, True))
        share = statistics.median(b / a - 1 for a, b in zip(plain, sketched, strict=True))
        costs.append((part, statistics.median(plain), statistics.median(sketched), share))
    return costs
