"""The loss of answers that a policy wrote itself: clipped policy gradient, and the distance to a reference policy.

Schulman et al. 2017 (PPO, arXiv 1707.06347, equation 7) with the advantages and the estimate of the distance of Shao et
al. 2024 (GRPO, arXiv 2402.03300, equations 3 and 4). Every token of an answer has the answer's advantage.
"""

from __future__ import annotations

from torch import Tensor, minimum


def policy_losses(
    likelihood: Tensor, old: Tensor, reference: Tensor | None, advantages: Tensor, *, clip: float, kl: float
) -> Tensor:
    """The loss of each token, with its gradient by `likelihood`.

    With ρ = π/π_old, it is - min(ρ·A, clip(ρ, 1 - ε, 1 + ε)·A) + β·D. On the step that follows the sampling ρ is 1, and
    the gradient is REINFORCE's, -A·∇log π.

    Args:
        likelihood: log π of each token (tokens,) fp32 in nats under the policy that is trained.
        old: the same when the token was drawn, without a gradient.
        reference: the same under the reference policy; None where `kl` is 0.
        advantages: A of each token's answer.
        clip: ε; a ratio farther from 1 gives no more gradient in the direction that its advantage asks for.
        kl: β, the weight of `distances`.

    Returns:
        (tokens,) fp32.
    """
    ratio = (likelihood - old).exp()
    losses = -minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return losses if reference is None else losses + kl * distances(likelihood, reference)


def distances(likelihood: Tensor, reference: Tensor) -> Tensor:
    """An unbiased estimate of the divergence KL(π, π_ref) at each token, never below 0: ρ - log ρ - 1 with
    ρ = π_ref/π (Schulman 2020, "Approximating KL divergence", k3)."""
    gap = reference - likelihood
    return gap.exp() - gap - 1
