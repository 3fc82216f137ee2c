"""The failure of a reward, which ends it or the round as its owner has configured."""

from __future__ import annotations


class RewardFailed(Exception):
    """A reward gave no usable numbers; the text says why, in a few words."""
