from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edge_client.engines.lean.model.batches import IGNORED
from edge_client.engines.lean.model.chunked_loss import (
    LOGITS_BYTES,
    VOCABULARY_ROWS,
    head_loss,
    head_losses,
    head_token_losses,
)
from quantize.int8 import to_int8
from quantize.nf4 import to_nf4
from quantize.weight import DenseWeight, FrozenWeight

VOCABULARY, D = 2 * VOCABULARY_ROWS + 77, 12
FORMATS = {"fp32": DenseWeight, "int8": to_int8, "nf4": to_nf4}


def case(batch: int, tokens: int, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, labels with a few ignored, and a head."""
    generator = torch.Generator().manual_seed(batch + tokens)
    hidden = scale * torch.randn(batch, tokens, D, generator=generator)
    labels = torch.randint(0, VOCABULARY, (batch, tokens), generator=generator)
    labels[0, ::3] = IGNORED
    return hidden, labels, torch.randn(VOCABULARY, D, generator=generator)


def reference(hidden: Tensor, labels: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and its gradient by the hidden states, in float64, all logits at once."""
    leaf = hidden.double().requires_grad_(True)
    logits = (leaf @ head.double().t()).flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tokens", [5, LOGITS_BYTES // (4 * VOCABULARY_ROWS) + 3])
def test_loss_and_gradient_equal_float64(format: str, tokens: int) -> None:
    """Over several chunks of the vocabulary and of the tokens, in every way a head is stored."""
    hidden, labels, values = case(2, tokens)
    head: FrozenWeight = FORMATS[format](values)
    leaf = hidden.clone().requires_grad_(True)

    loss = head_loss(leaf, labels, head)
    loss.backward()

    expected, grad = reference(hidden, labels, head.dense(torch.float32))
    assert leaf.grad is not None
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert (leaf.grad - grad).abs().max() < 1e-5 * grad.abs().max()


def test_losses_of_each_token_take_any_weights() -> None:
    """The gradient of a weighted sum is that of float64, as an objective with a weight for every token needs it."""
    hidden, labels, head = case(2, 9)
    n_labels = int((labels != IGNORED).sum())
    weights = torch.linspace(-2, 2, n_labels)
    leaf, exact = hidden.clone().requires_grad_(True), hidden.double().requires_grad_(True)

    losses = head_token_losses(leaf, labels, DenseWeight(head))
    (weights * losses).sum().backward()

    logits = (exact @ head.double().t()).flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="none")
    each = each[labels.flatten() != IGNORED]
    (weights * each).sum().backward()
    torch.testing.assert_close(losses.double(), each, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr] # a leaf


def test_losses_of_each_example_equal_float64() -> None:
    """Per example of the batch by itself; one without any label has none."""
    hidden, labels, head = case(3, 9)
    labels[1] = IGNORED

    losses = head_losses(hidden, labels, DenseWeight(head))

    expected = [float(reference(hidden[i : i + 1], labels[i : i + 1], head)[0]) for i in (0, 2)]
    assert losses.tolist() == pytest.approx([expected[0], 0.0, expected[1]], rel=1e-5)


@pytest.mark.parametrize("place", [0, VOCABULARY_ROWS + 1, VOCABULARY - 1])
def test_a_large_logit_in_any_chunk_overflows_nothing(place: int) -> None:
    """One head row gives logits of thousands; the running maximum carries them whichever chunk they come in."""
    hidden, labels, head = case(1, 7, scale=30.0)
    head[place] *= 50
    leaf = hidden.clone().requires_grad_(True)

    loss = head_loss(leaf, labels, DenseWeight(head))
    loss.backward()

    expected, grad = reference(hidden, labels, head)
    assert leaf.grad is not None
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert (leaf.grad - grad).abs().max() < 1e-4 * grad.abs().max()


def test_without_gradients_the_loss_is_the_same() -> None:
    """Evaluation takes the same sums and keeps no gradient."""
    hidden, labels, head = case(2, 9)

    with_grad = head_loss(hidden.clone().requires_grad_(True), labels, DenseWeight(head))
    without = head_loss(hidden, labels, DenseWeight(head))

    assert float(with_grad.detach()) == float(without)
    assert not without.requires_grad


def test_bf16_loss_is_near_fp32() -> None:
    """Sums are fp32 whatever the products are."""
    hidden, labels, head = case(2, 40)

    half = head_loss(hidden.bfloat16(), labels, DenseWeight(head.bfloat16()))

    torch.testing.assert_close(half, head_loss(hidden, labels, DenseWeight(head)), rtol=5e-3, atol=0)


def test_ignored_places_get_no_gradient() -> None:
    """A padded target neither counts nor pulls."""
    hidden, labels, head = case(2, 9)
    leaf = hidden.clone().requires_grad_(True)

    head_loss(leaf, labels, DenseWeight(head)).backward()

    assert leaf.grad is not None
    assert torch.equal(leaf.grad.abs().sum(-1) == 0, labels == IGNORED)
