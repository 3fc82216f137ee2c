from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.gradients.sketches import TURNS, InputSketch, Sketches, SketchWindow, input_sketches
from edge_client.engines.lean.model.adapter_tensors import read_adapter
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.model import Model
from edge_client.jobs.messages import Job
from quantize.base import load_base
from wire.projection import projection
from wire.run import TrainSettings, Weight

CPU = torch.device("cpu")
SEED, RANK, N_TOKENS = 3, 12, 64
WEIGHTS = (Weight(name="q", rows=20, columns=30), Weight(name="k", rows=44, columns=30))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def expected(weight: Weight, passes: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Ω·Σ gᵀx with G formed, fp32."""
    omega = torch.from_numpy(projection(SEED, weight.name, RANK, weight.rows))
    return omega @ sum(grad.float().t() @ x.float() for grad, x in passes)


def assert_sums(sketch: InputSketch, passes: dict[str, list[tuple[Tensor, Tensor]]], error: float = 1e-6) -> None:
    for weight in WEIGHTS:
        wanted = expected(weight, passes[weight.name])
        assert (sketch.sums[weight.name] - wanted).norm() <= error * wanted.norm(), weight.name


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_weights_that_read_together_have_the_sketches_they_would_have_alone(
    dtype: torch.dtype, error: float, generator: torch.Generator
) -> None:
    """Over two passes, each sum is Ω·(Σ gᵀx) of its own weight to the rounding of the dtype, and so is it alone."""
    together = InputSketch(WEIGHTS, RANK, SEED, CPU)
    alone = {weight.name: InputSketch([weight], RANK, SEED, CPU) for weight in WEIGHTS}
    passes: dict[str, list[tuple[Tensor, Tensor]]] = {weight.name: [] for weight in WEIGHTS}

    for _ in range(2):
        x = torch.randn(N_TOKENS, 30, generator=generator).to(dtype)
        for weight in reversed(WEIGHTS):
            grad = torch.randn(N_TOKENS, weight.rows, generator=generator).to(dtype)
            together.observers[weight.name].add(grad, x)
            alone[weight.name].observers[weight.name].add(grad, x)
            passes[weight.name].append((grad, x))

    assert_sums(together, passes, error)
    for name, sketch in alone.items():
        torch.testing.assert_close(together.sums[name], sketch.sums[name], rtol=error, atol=error)


def test_no_pass_is_lost_or_counted_twice(generator: torch.Generator) -> None:
    """A weight that comes again, another input of the same shape, and a weight that does not come: sums stay right,
    also when they are read, or flushed, in between."""
    sketch = InputSketch(WEIGHTS, RANK, SEED, CPU)
    passes: dict[str, list[tuple[Tensor, Tensor]]] = {weight.name: [] for weight in WEIGHTS}
    first, second = (torch.randn(N_TOKENS, 30, generator=generator) for _ in range(2))

    def add(place: int, x: Tensor) -> None:
        weight = WEIGHTS[place]
        grad = torch.randn(N_TOKENS, weight.rows, generator=generator)
        sketch.observers[weight.name].add(grad, x)
        passes[weight.name].append((grad, x))

    for place, x in ((0, first), (0, first), (1, second), (0, second), (1, first), (1, second), (0, first)):
        add(place, x)
    assert_sums(sketch, passes)
    add(0, first)
    sketch.flush()
    add(1, first)
    assert_sums(sketch, passes)
    assert_sums(sketch, passes)


def test_sums_can_be_saved_and_restored_in_place(generator: torch.Generator) -> None:
    """Sums of weights that share one memory go through a saved training, and go on from what is copied into them."""
    x, grads = torch.randn(5, 30, generator=generator), {w.name: torch.ones(5, w.rows) for w in WEIGHTS}
    before, after = InputSketch(WEIGHTS, RANK, SEED, CPU), InputSketch(WEIGHTS, RANK, SEED, CPU)
    for name, grad in grads.items():
        before.observers[name].add(grad, x)
    for name, rows in load(save(before.sums)).items():
        after.sums[name].copy_(rows)

    for name, grad in grads.items():
        before.observers[name].add(grad, x)
        after.observers[name].add(grad, x)

    for name, rows in before.sums.items():
        assert torch.equal(after.sums[name], rows)


def test_ranks_are_each_weights_own() -> None:
    """Weights of one layer with fewer rows than the run's rank have sketches of so many rows."""
    layer = "decoder.block.0.layer.0.SelfAttention"
    weights = [Weight(name=f"{layer}.{matrix}", rows=rows, columns=30) for matrix, rows in (("q", 40), ("k", 4))]
    sums = {name: rows for inputs in input_sketches(weights, RANK, SEED, CPU) for name, rows in inputs.sums.items()}
    assert {name.rpartition(".")[2]: rows.shape for name, rows in sums.items()} == {"q": (12, 30), "k": (4, 30)}


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_shared_inputs_change_no_sketch(
    scope: str, checkpointing: bool, make_job: Callable[..., Job], base_folder: Path
) -> None:
    """In the model's own backward passes, with blocks computed again or not and the encoder's output read by every
    decoder block, sketches taken together equal those taken one by one."""
    job = make_job(settings={"scope": scope})
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    base = load_base(base_folder, "fp32")
    model = Model(base, adapter, "fp32", trains_encoder=scope == "all", checkpointing=checkpointing)
    batch = _batch()
    together = Sketches(job.run.weights, job.run.max_rank, SEED, CPU)
    together.attach(model.linears)
    for _ in range(2):
        model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]
        together.count(batch.n_target_tokens)

    alone = {w.name: InputSketch([w], len(together.sums[w.name]), SEED, CPU) for w in job.run.weights}
    for name, sketch in alone.items():
        model.linears[name].start_sketch(sketch.observers[name])
    for _ in range(2):
        model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]

    for name, rows in together.sums.items():
        wanted = alone[name].sums[name]
        assert wanted.any(), name
        assert (rows - wanted).norm() < 1e-5 * wanted.norm(), name


@pytest.mark.slow
def test_each_turn_counts_for_its_own_blocks(make_job: Callable[..., Job], base_folder: Path) -> None:
    """With turns every weight's sketch is the mean of the passes of its own block's turn, by their tokens, as if there
    had been no others; a weight's input is kept all the same, for a profile keeps it too."""
    job = make_job(settings={"scope": "decoder"})
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    model = Model(load_base(base_folder, "fp32"), adapter, "fp32", trains_encoder=False)
    batches = [_batch(seed) for seed in (6, 7, 8, 9)]

    def sketched(passes: list[tuple[Batch, int]], n_turns: int) -> dict[str, Tensor]:
        sketches = Sketches(job.run.weights, job.run.max_rank, SEED, CPU, n_turns)
        for batch, turn in passes:
            sketches.attach(model.linears, turn)
            assert all(linear.sketch is not None for name, linear in model.linears.items() if "decoder" in name)
            model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]
            sketches.count(batch.n_target_tokens, turn)
        return sketches.mean()

    found = sketched(list(zip(batches, (0, 1, 1, 0), strict=True)), 2)

    of_turn = [sketched([(batches[i], 0) for i in places], 1) for places in ((0, 3), (1, 2))]
    assert {int(name.split(".")[2]) % 2 for name in found} == {0, 1}
    for name, rows in found.items():
        wanted = of_turn[int(name.split(".")[2]) % 2][name]
        assert wanted.any(), name
        assert (rows - wanted).norm() < 1e-5 * wanted.norm(), name


@pytest.mark.parametrize("sketch_batches", [1, 2, 8])
@pytest.mark.parametrize(("batch", "micro_batch"), [(16, 2), (16, 16), (6, 4), (5, 5), (7, 3), (64, 8)])
def test_the_window_is_the_end_of_the_round_and_the_same_in_every_plan(
    batch: int, micro_batch: int, sketch_batches: int
) -> None:
    """Every turn has `sketch_batches` of the last micro-batches, one after the other; boards with smaller ones have
    the same turns. A round too short for that sketches as much as it can of all weights together."""
    settings = _settings(batch=batch, micro_batch=micro_batch, sketch_batches=sketch_batches, local_steps=10)
    window = SketchWindow.of(settings)
    per_step = math.ceil(batch / micro_batch)
    assert window.n_turns == (TURNS if TURNS * sketch_batches <= 10 * per_step else 1)

    passes = [
        {window.turn(step * batch + place) for place in range(first, min(first + micro_batch, batch))}
        for step in range(10)
        for first in range(0, batch, micro_batch)
    ]

    assert all(len(turns) == 1 for turns in passes)
    turns = [turns.pop() for turns in passes]
    n_sketched = min(len(turns), window.n_turns * sketch_batches)
    assert turns[:-n_sketched] == [None] * (len(turns) - n_sketched)
    assert sorted(Counter(turns[-n_sketched:]).values()) == [n_sketched // window.n_turns] * window.n_turns
    assert None not in turns[-n_sketched:]


def test_an_input_is_let_go_when_all_have_come(generator: torch.Generator) -> None:
    """Nothing of a pass is kept once the last weight of a group has come."""
    sketch = InputSketch(WEIGHTS, RANK, SEED, CPU)
    x = torch.randn(N_TOKENS, 30, generator=generator)
    for weight in WEIGHTS:
        sketch.observers[weight.name].add(torch.ones(N_TOKENS, weight.rows), x)
    assert sketch._x is None
    assert not sketch._waiting


def _settings(**changes: int) -> TrainSettings:
    return TrainSettings(scope="decoder", learning_rate=1e-3, max_source_tokens=16, max_target_tokens=8, **changes)


def _batch(seed: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((9, 4), (3, 6), (12, 2))
    ids = [[torch.randint(2, 96, (n,), generator=generator).tolist() for n in size] for size in sizes]
    return collate([Pair((*source, 1), (*target, 1)) for source, target in ids], pad_id=0, start_id=0)
