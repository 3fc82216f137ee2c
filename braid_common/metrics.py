"""The names of what boards measure of a version, and report (`wire.messages.Report` of kind "evaluation").

A score belongs to a subject: the version itself, by the plain name (`loss`), or what it is compared with on the same
held-out text, by a prefix (`base_loss`, `personal_loss`, `alone_loss`). A board sends those that it has measured. Costs
are of the round that was trained on that version.
"""

from __future__ import annotations

from typing import Literal

Subject = Literal["global", "base", "personal", "alone"]
"""What is scored: `global`, the version that the run has published; `base`, the model without any adapter; `personal`,
the version with what this board has learnt for itself; `alone`, what the board has learnt without any fleet, from the
base and in as many steps."""

SUBJECTS: tuple[Subject, ...] = ("base", "alone", "global", "personal")

SCORES = ("loss", "rouge1", "rouge2", "rougeL", "exact_match")
"""`loss` in nats per target token, the lower the better; the others from 0 to 1, the higher the better: F1 of ROUGE,
and the share of texts that are a right answer."""

N_EXAMPLES = "n_examples"
"""The held-out examples that were scored."""

TRAIN_LOSS = "train_loss"
"""Of the round's last step, in nats per target token."""

TRAIN_S = "train_s"
"""Seconds of the round's optimiser steps."""

ENCODE_S = "encode_s"
"""Seconds of the encoder's pass over what the board's cache lacked, before them."""

TRAIN_TOKENS_PER_S = "train_tokens_per_s"
"""Source and target tokens that the steps have seen in a second."""

TRAIN_PEAK_BYTES = "train_peak_bytes"
"""The worker's peak memory, libraries included."""

TRAIN_JOULES = "train_joules"
"""Energy of the steps, from boards with a sensor that was read."""

EVALUATE_S = "seconds"
"""Seconds of an evaluation that was asked for by itself, at the end of a run."""

ROUND_COSTS = frozenset({TRAIN_LOSS, TRAIN_S, ENCODE_S, TRAIN_TOKENS_PER_S, TRAIN_PEAK_BYTES, TRAIN_JOULES})
"""What a board says of a round that it has trained, beside the scores of the version that it began with."""

PRIVACY_EPSILON = "privacy_epsilon"
PRIVACY_DELTA = "privacy_delta"
"""The (ε, δ) of differential privacy that a board has spent on its text so far, in all of its uploads."""


def metric(subject: Subject, score: str) -> str:
    """The name under which a score of a subject is reported."""
    return score if subject == "global" else f"{subject}_{score}"
