"""The policy loss and its gradient against the papers' equations in float64."""

from __future__ import annotations

import pytest
import torch

from edge_client.engines.lean.reward.policy_loss import distances, policy_losses
from tests.reference import policy


def case(n_tokens: int) -> tuple[torch.Tensor, ...]:
    """Log-likelihoods under three policies and advantages; ratios reach from 0.3 to 3."""
    generator = torch.Generator().manual_seed(0)
    likelihood = -3 * torch.rand(n_tokens, generator=generator)
    old, reference = (likelihood + 0.4 * torch.randn(n_tokens, generator=generator) for _ in range(2))
    return likelihood, old, reference, torch.randn(n_tokens, generator=generator)


@pytest.mark.parametrize(("clip", "kl"), [(0.2, 0.05), (0.05, 3.0), (1.0, 0.0)])
def test_loss_and_gradient_equal_float64(clip: float, kl: float) -> None:
    """Ratios, clipping and divergence; among the tokens are clipped ones of either sign."""
    likelihood, old, reference, advantages = case(200)
    leaf, exact = likelihood.clone().requires_grad_(True), likelihood.double().requires_grad_(True)

    loss = policy_losses(leaf, old, reference, advantages, clip=clip, kl=kl).sum()
    loss.backward()  # type: ignore[no-untyped-call]

    expected = policy.loss(exact, old.double(), reference.double(), advantages.double(), clip=clip, kl=kl)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    assert leaf.grad is not None and exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)
    assert 20 < int((leaf.grad == 0).sum()) < 150 or kl or clip == 1.0


def test_a_clipped_ratio_gives_no_gradient_farther_that_way() -> None:
    """A good token that has become 30 % likelier gives none, a bad one still does, and the other way round."""
    ratios = torch.tensor([1.3, 1.3, 0.7, 0.7]).log().requires_grad_(True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0])

    policy_losses(ratios, torch.zeros(4), None, advantages, clip=0.2, kl=0.0).sum().backward()  # type: ignore[no-untyped-call]

    assert ratios.grad is not None
    torch.testing.assert_close(ratios.grad, torch.tensor([0.0, 1.3, -0.7, 0.0]))


def test_on_the_policys_own_answers_it_is_reinforce() -> None:
    """At ρ = 1 the gradient by the log-likelihood is minus the advantage, whatever the clipping."""
    likelihood, _, _, advantages = case(20)
    leaf = likelihood.clone().requires_grad_(True)

    policy_losses(leaf, likelihood, None, advantages, clip=0.01, kl=0.0).sum().backward()  # type: ignore[no-untyped-call]

    torch.testing.assert_close(leaf.grad, -advantages)


def test_the_distance_is_that_of_the_distributions() -> None:
    """Its mean over tokens that the policy draws is the divergence; it is never below 0, and 0 without a difference."""
    generator = torch.Generator().manual_seed(1)
    mine, theirs = (torch.log_softmax(torch.randn(6, generator=generator).double(), 0) for _ in range(2))

    exact = float((mine.exp() * (mine - theirs)).sum())

    assert float((mine.exp() * distances(mine, theirs)).sum()) == pytest.approx(exact, abs=1e-12)
    assert (distances(mine, theirs) >= 0).all()
    assert (distances(mine, mine) == 0).all()


def test_the_distance_pulls_back() -> None:
    """Every regulariser has a gradient: this one's leads towards the reference."""
    leaf = torch.tensor([-1.0, -3.0]).requires_grad_(True)

    policy_losses(leaf, leaf.detach(), torch.tensor([-2.0, -2.0]), torch.zeros(2), clip=0.2, kl=0.5).sum().backward()  # type: ignore[no-untyped-call]

    assert leaf.grad is not None
    assert leaf.grad[0] > 0 > leaf.grad[1]
