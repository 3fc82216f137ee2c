from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edge_client.engines.lean.gradients.adalora import BETA, AdaLora, Triplets
from edge_client.engines.lean.gradients.magnitude_gradient import BLOCK_VALUES, MagnitudeGradient
from edge_client.engines.lean.gradients.sketches import input_sketches
from edge_client.engines.lean.model.lora import Linear, Observer
from edge_client.jobs.sizes import ADALORA_RANK
from quantize.int8 import to_int8
from quantize.weight import DenseWeight, FrozenWeight
from wire.run import Weight

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SHAPES = {"first": (300, 50), "second": (20, 300), "third": (7, 20)}  # the first has more than one block of G's rows
Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture
def frozen() -> dict[str, FrozenWeight]:
    """A net of three layers, not square."""
    generator = torch.Generator().manual_seed(1)
    return {name: DenseWeight(0.1 * torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


@pytest.fixture
def weights() -> list[Weight]:
    return [Weight(name=name, rows=rows, columns=columns) for name, (rows, columns) in SHAPES.items()]


@pytest.fixture
def batches() -> Batches:
    """Inputs and targets of unequal numbers of tokens."""
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(n, SHAPES["first"][1], generator=generator), torch.randn(n, 7, generator=generator))
        for n in (5, 9, 4, 12)
    ]


def summed_loss(layers: Mapping[str, Callable[[Tensor], Tensor]], x: Tensor, target: Tensor) -> Tensor:
    for layer in layers.values():
        x = torch.tanh(layer(x))
    return (x - target).square().sum()


def linears_of(frozen: Mapping[str, FrozenWeight]) -> dict[str, Linear]:
    return {name: Linear(weight, torch.float32) for name, weight in frozen.items()}


def backward(linears: Mapping[str, Linear], x: Tensor, target: Tensor) -> int:
    summed_loss(linears, x, target).backward()  # type: ignore[no-untyped-call]
    return len(x)


def observe(linears: Mapping[str, Linear], observers: Mapping[str, Observer]) -> None:
    for name, observer in observers.items():
        linears[name].start_sketch(observer)


def dense_gradients(dense: Mapping[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
    """G of the summed loss in float64, by plain autograd."""
    leaves = {name: value.double().requires_grad_(True) for name, value in dense.items()}
    layers = {name: (lambda y, leaf=leaf: y @ leaf.t()) for name, leaf in leaves.items()}
    summed_loss(layers, x.double(), target.double()).backward()  # type: ignore[no-untyped-call]
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


# --- magnitude times gradient ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_magnitude_gradient_is_that_of_autograd(
    format: str, frozen: dict[str, FrozenWeight], weights: list[Weight], batches: Batches
) -> None:
    """Σ|W∘G| per weight, meaned over batches by their tokens, equals the float64 product with autograd's full G."""
    if format == "int8":
        frozen = {name: to_int8(weight.dense(torch.float32)) for name, weight in frozen.items()}
    dense = {name: weight.dense(torch.float32) for name, weight in frozen.items()}
    linears, scores = linears_of(frozen), MagnitudeGradient(weights, frozen)
    observe(linears, scores.observers)
    sums, n_tokens = dict.fromkeys(SHAPES, 0.0), 0

    for x, target in batches:
        scores.count(backward(linears, x, target))
        n_tokens += len(x)
        for name, gradient in dense_gradients(dense, x, target).items():
            sums[name] += float((dense[name].double() * gradient).abs().sum())

    expected = {name: total / n_tokens for name, total in sums.items()}
    assert scores.scores() == pytest.approx(expected, rel=1e-5)


def test_magnitude_gradient_does_not_grow_with_tokens(
    frozen: dict[str, FrozenWeight], weights: list[Weight], batches: Batches
) -> None:
    """A board that sees the same batches three times has the same scores."""
    found = []
    for repeats in (1, 3):
        linears, scores = linears_of(frozen), MagnitudeGradient(weights, frozen)
        observe(linears, scores.observers)
        for x, target in batches * repeats:
            scores.count(backward(linears, x, target))
        found.append(scores.scores())

    assert found[0] == pytest.approx(found[1], rel=1e-9)


# --- AdaLoRA ---------------------------------------------------------------------------------------------------------


def test_gradients_of_the_triplets_are_those_of_autograd(
    frozen: dict[str, FrozenWeight], weights: list[Weight], batches: Batches
) -> None:
    """Step after step, ∂loss/∂B, ∂E and ∂A of every weight equal autograd's on W + B·diag(E)·A made dense: the model
    runs with the newest triplets."""
    linears = linears_of(frozen)
    scores = AdaLora(weights, linears, seed=3, compute=torch.float32)
    observe(linears, scores.observers)

    for x, target in batches:
        leaves = {
            name: [value.detach().double().requires_grad_(True) for value in (t.b, t.e, t.a)]
            for name, t in scores.observers.items()
        }
        dense = {name: frozen[name].dense(torch.float64) + (b * e) @ a for name, (b, e, a) in leaves.items()}
        layers = {name: (lambda y, w=w: y @ w.t()) for name, w in dense.items()}
        summed_loss(layers, x.double(), target.double()).backward()  # type: ignore[no-untyped-call]
        n_tokens = backward(linears, x, target)

        for name, triplets in scores.observers.items():
            for leaf, ours in zip(leaves[name], (triplets.b, triplets.e, triplets.a), strict=True):
                assert leaf.grad is not None and ours.grad is not None
                assert (ours.grad - leaf.grad).norm() <= 1e-5 * leaf.grad.norm()
        scores.count(n_tokens)

    assert all(float(triplets.e.abs().min()) > 0 for triplets in scores.observers.values())


def test_scores_are_those_of_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same parameters and gradients, step after step, the triplets' scores are those by which PEFT's
    RankAllocator masks."""
    from peft import AdaLoraConfig, get_peft_model
    from peft.tuners.adalora.layer import RankAllocator

    rows, columns = 11, 6
    triplets = Triplets(Weight(name="0", rows=rows, columns=columns), 5, CPU)
    net = torch.nn.Sequential(torch.nn.Linear(columns, rows, bias=False))
    config = AdaLoraConfig(init_r=ADALORA_RANK, target_modules=["0"], total_step=100, beta1=BETA, beta2=BETA)
    model: Any = get_peft_model(net, config)
    allocator: Any = RankAllocator(model, config, "default")  # type: ignore[no-untyped-call]
    theirs = {key.split(".lora_")[1][0]: value for key, value in model.named_parameters() if ".lora_" in key}
    generator = torch.Generator().manual_seed(6)

    for _ in range(5):
        grad, x = torch.randn(9, rows, generator=generator), torch.randn(9, columns, generator=generator)
        triplets.add(grad, x)
        triplets.observe(n_target_tokens=4)
        for key, ours in (("A", triplets.a), ("B", triplets.b), ("E", triplets.e[:, None])):
            theirs[key].data = ours.clone()
        for key, found in (("A", triplets.a.grad), ("B", triplets.b.grad), ("E", triplets.e.grad)):
            assert found is not None
            theirs[key].grad = found.reshape(theirs[key].shape) / 4
        allocator.update_ipt(model)
        for value in (triplets.a, triplets.b, triplets.e):
            assert value.grad is not None
            value -= 0.01 * value.grad
            value.grad = None

    compared: list[Tensor] = []  # what PEFT looks for its threshold in are the scores of all triplets
    kthvalue = torch.kthvalue

    def note(scores: Tensor, k: int) -> Any:
        compared.append(scores)
        return kthvalue(scores, k=k)

    monkeypatch.setattr(torch, "kthvalue", note)
    allocator.mask_to_budget(model, 1)
    torch.testing.assert_close(triplets.scores(), compared[0], rtol=1e-5, atol=0)


def test_adalora_does_not_grow_with_tokens(
    frozen: dict[str, FrozenWeight], weights: list[Weight], batches: Batches
) -> None:
    """Batches with every example twice give the same scores."""
    found = []
    for repeats in (1, 2):
        linears = linears_of(frozen)
        scores = AdaLora(weights, linears, seed=3, compute=torch.float32)
        observe(linears, scores.observers)
        for x, target in batches:
            scores.count(backward(linears, x.repeat(repeats, 1), target.repeat(repeats, 1)))
        found.append(scores.scores())

    assert found[0] == pytest.approx(found[1], rel=1e-4)


# --- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("importance", ["adalora", "magnitude_gradient"])
def test_no_gradient_of_a_weight_is_formed(importance: str) -> None:
    """Nothing that scoring allocates, in a backward pass or a step, is larger than the block of G's rows or a factor of
    the triplets."""
    rows, columns = 600, 1000
    frozen = {"w": DenseWeight(torch.randn(rows, columns))}
    linears = linears_of(frozen)
    scores = make_scores(importance, [Weight(name="w", rows=rows, columns=columns)], frozen, linears)
    grad, x = torch.randn(3, rows), torch.randn(3, columns)

    with Allocations() as seen:
        for _ in range(2):
            scores.observers["w"].add(grad, x)
            scores.count(3)
        scores.scores()

    assert (
        0
        < seen.most_values
        <= (ADALORA_RANK * columns if importance == "adalora" else BLOCK_VALUES)
        < rows * columns / 4
    )


@pytest.mark.parametrize("useful", range(4))
@pytest.mark.parametrize("importance", ["sketch", "adalora", "magnitude_gradient"])
def test_the_weight_that_has_to_change_comes_first(importance: str, useful: int) -> None:
    """Of four maps of which all but one fit their targets up to noise, that one has the highest score by each rule."""
    generator = torch.Generator().manual_seed(4)
    weights = [Weight(name=f"w{i}", rows=14, columns=9) for i in range(4)]
    frozen = {weight.name: DenseWeight(0.3 * torch.randn(14, 9, generator=generator)) for weight in weights}
    true = {name: weight.values + 0.05 * torch.randn(14, 9, generator=generator) for name, weight in frozen.items()}
    true[f"w{useful}"] = true[f"w{useful}"] + torch.randn(14, 1, generator=generator) @ torch.randn(1, 9)
    linears = linears_of(frozen)
    sketches = input_sketches(weights, max_rank=5, seed=1, device=CPU)
    scores = None if importance == "sketch" else make_scores(importance, weights, frozen, linears)
    sketched = {name: observer for one in sketches for name, observer in one.observers.items()}
    observe(linears, sketched if scores is None else scores.observers)

    for _ in range(8):
        x = torch.randn(16, 9, generator=generator)
        losses = [(linear(x) - x @ true[name].t()).square().sum() for name, linear in linears.items()]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        if scores is not None:
            scores.count(16)

    if scores is None:
        found = {name: float(rows.square().sum()) for one in sketches for name, rows in one.sums.items()}
    else:
        found = scores.scores()
    assert max(found, key=found.__getitem__) == f"w{useful}"


def make_scores(
    importance: str, weights: list[Weight], frozen: Mapping[str, FrozenWeight], linears: Mapping[str, Linear]
) -> AdaLora | MagnitudeGradient:
    if importance == "adalora":
        return AdaLora(weights, linears, seed=3, compute=torch.float32)
    return MagnitudeGradient(weights, frozen)


class Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most values of any tensor that an operation gives while this is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.most_values = max(self.most_values, tensor.numel())
        return result
