from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edge_client.data.tokeniser import Pair
from edge_client.engines.lean.gradients.sketches import Sketches
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_adapter, read_any_adapter
from edge_client.engines.lean.model.batches import Batch, collate
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.model import Model
from edge_client.jobs.messages import Job
from quantize.base import load_base
from quantize.int8 import to_int8
from quantize.weight import DenseWeight, FrozenWeight
from wire.projection import projection

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own call
]

ROUNDING = 2e-5
"""Relative: fp32's 6e-8, grown by five blocks of random weights in which the two sides sum in another order. 5e-6 was
seen; attention that is sharper than T5's makes it 4e-5, on both sides alike."""


@pytest.fixture
def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(4)
    sizes = (((9, 4), (3, 6)), ((7, 2), (12, 5), (2, 3)))
    return [
        collate(
            [
                Pair(
                    (*torch.randint(2, 96, (n,), generator=generator).tolist(), 1),
                    (*torch.randint(2, 96, (m,), generator=generator).tolist(), 1),
                )
                for n, m in size
            ],
            pad_id=0,
            start_id=0,
        )
        for size in sizes
    ]


def dense_gradients(model: Model, batches: list[Batch]) -> dict[str, Tensor]:
    """G of every linear map by plain autograd on dense weights, loss the mean per token over all batches."""
    leaves: dict[str, Tensor] = {}
    for name, linear in model.linears.items():
        frozen = linear._frozen
        dense = linear._weight.dense(torch.float32) + linear.b.detach() @ linear.factors.a
        leaves[name] = (dense if frozen is None else dense + frozen.b @ frozen.a).clone().requires_grad_(True)
    plain = {name: (lambda x, leaf=leaf: x @ leaf.t()) for name, leaf in leaves.items()}
    model._t5._linears = plain  # type: ignore[assignment]
    model._trains_encoder = True
    n_tokens = sum(batch.n_target_tokens for batch in batches)
    for batch in batches:
        (model.loss_sum(batch) / n_tokens).backward()
    model._t5._linears = model.linears
    return {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}


def random_b(model: Model) -> None:
    generator = torch.Generator().manual_seed(9)
    for linear in model.linears.values():
        linear.b = 0.1 * torch.randn(linear.b.shape, generator=generator)


@pytest.mark.parametrize("scope", ["all", "decoder"])
def test_sketch_is_omega_times_gradient(
    scope: str, make_job: Callable[..., Job], base_folder: Path, batches: list[Batch]
) -> None:
    """The sketch of every weight, taken in the real backward pass with unequal ranks (also 0), frozen factors and B,
    equals Ω·G with G formed by autograd on dense weights, to fp32 rounding."""
    job = make_job(settings={"scope": scope})
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    model = Model(load_base(base_folder, "fp32"), adapter, "fp32", trains_encoder=scope == "all")
    random_b(model)
    sketches = Sketches(job.run.weights, job.run.max_rank, seed=7, device=torch.device("cpu"))
    sketches.attach(model.linears)

    for batch in batches:
        model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]
        sketches.count(batch.n_target_tokens)

    for linear in model.linears.values():
        linear.sketch = None
    gradients, taken = dense_gradients(model, batches), sketches.mean()
    assert len(taken) == len(job.run.weights)
    for weight in job.run.weights:
        rank = min(job.run.max_rank, weight.rows, weight.columns)
        omega = torch.from_numpy(projection(7, weight.name, rank, weight.rows))
        expected = omega @ gradients[weight.name]
        assert (taken[weight.name] - expected).norm() < ROUNDING * expected.norm(), weight.name


def test_gradients_of_b_are_those_of_autograd(
    make_job: Callable[..., Job], base_folder: Path, batches: list[Batch]
) -> None:
    """∂loss/∂B = G·Aᵀ for every trained weight."""
    job = make_job()
    adapter = read_adapter(Path(job.adapter_path), job.run, 1, job.plan.ranks)
    model = Model(load_base(base_folder, "fp32"), adapter, "fp32", trains_encoder=True)
    random_b(model)
    trained = {name: linear for name, linear in model.linears.items() if linear.rank}
    for linear in trained.values():
        linear.train()

    for batch in batches:
        model.loss_sum(batch).backward()  # type: ignore[no-untyped-call]

    n_tokens = sum(batch.n_target_tokens for batch in batches)
    gradients = dense_gradients(model, batches)
    for name, linear in trained.items():
        expected = gradients[name] @ linear.factors.a.t()
        assert linear.b.grad is not None
        assert (linear.b.grad / n_tokens - expected).norm() < ROUNDING * expected.norm(), name


def test_gradients_of_b_are_those_of_peft(reference: torch.nn.Module, base_folder: Path, batches: list[Batch]) -> None:
    """On the same factors, loss and ∂loss/∂B equal PEFT's LoRA with α = r."""
    from peft import LoraConfig, get_peft_model

    targets = ("q", "v", "wo")
    peft = get_peft_model(
        copy.deepcopy(reference), LoraConfig(r=4, lora_alpha=4, target_modules=list(targets), lora_dropout=0.0)
    )
    generator = torch.Generator().manual_seed(2)
    basis: dict[str, Tensor] = {}
    strands: dict[str, Tensor] = {}
    for key, value in peft.named_parameters():
        name = key.removeprefix("base_model.model.").split(".lora_")[0]
        if ".lora_" in key:
            value.data.normal_(0, 0.1, generator=generator)
            (basis if ".lora_A." in key else strands)[name] = value
    model = Model(
        load_base(base_folder, "fp32"),
        AdapterTensors(basis={name: a.detach().clone() for name, a in basis.items()}),
        "fp32",
        trains_encoder=True,
    )
    for name, b in strands.items():
        model.linears[name].b = b.detach().clone()
        model.linears[name].train()
    batch = batches[0]

    ours = model.loss_sum(batch) / batch.n_target_tokens
    ours.backward()  # type: ignore[no-untyped-call]
    theirs = peft(input_ids=batch.source, attention_mask=batch.source_mask.long(), labels=batch.labels).loss
    theirs.backward()

    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for name, b in strands.items():
        grad = model.linears[name].b.grad
        assert grad is not None and b.grad is not None
        torch.testing.assert_close(grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("n_tokens", [3, 200])
@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_linear_is_the_sum_of_its_parts(n_tokens: int, format: str) -> None:
    """Few or many tokens, folded or not, held or not: y and ∂x are those of W + C_b·C_a + B·A, and W stays as it is."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(20, 30, generator=generator)
    weight: FrozenWeight = DenseWeight(values) if format == "fp32" else to_int8(values)
    frozen = Factors(torch.randn(20, 4, generator=generator), torch.randn(4, 30, generator=generator))
    linear = Linear(weight, torch.float32, frozen, torch.randn(5, 30, generator=generator))
    linear.b = torch.randn(20, 5, generator=generator)
    x = torch.randn(2, n_tokens, 30, generator=generator, requires_grad=True)
    grad = torch.randn(2, n_tokens, 20, generator=generator)
    before = weight.dense(torch.float32).clone()
    total = before + frozen.b @ frozen.a + linear.b @ linear.factors.a

    for hold in (False, True):
        if hold:
            linear.hold()
        y = linear(x)
        (grad_x,) = torch.autograd.grad(y, x, grad)

        torch.testing.assert_close(y, x @ total.t(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(grad_x, grad @ total, rtol=1e-4, atol=1e-4)
        assert torch.equal(weight.dense(torch.float32), before)


def test_untrained_weights_keep_nothing() -> None:
    """A weight without strands, frozen factors or sketch keeps no value per token for backward."""
    kept: list[int] = []
    linear = Linear(DenseWeight(torch.randn(20, 30)), torch.float32)
    x = torch.randn(50, 30, requires_grad=True)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):  # type: ignore[func-returns-value]
        linear(x)

    assert sum(kept) == 0


def test_exported_folder_equals_peft(
    reference: torch.nn.Module, base_folder: Path, batches: list[Batch], tmp_path: Path
) -> None:
    """A PEFT folder gives the logits that PeftModel gives, α/r included."""
    from peft import LoraConfig, PeftModel, get_peft_model

    peft = get_peft_model(copy.deepcopy(reference), LoraConfig(r=3, lora_alpha=12, target_modules=["q", "wi_1"]))
    generator = torch.Generator().manual_seed(6)
    for key, value in peft.named_parameters():
        if ".lora_" in key:
            value.data.normal_(0, 0.2, generator=generator)
    peft.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(copy.deepcopy(reference), str(tmp_path / "adapter"))
    batch = batches[1]

    base = load_base(base_folder, "fp32")
    model = Model(base, read_any_adapter(tmp_path / "adapter", base.weights), "fp32")
    ours = model.loss_sum(batch) / batch.n_target_tokens

    theirs = loaded(input_ids=batch.source, attention_mask=batch.source_mask.long(), labels=batch.labels).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 12
