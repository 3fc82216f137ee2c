"""The factors that a round began with, kept beside those that it trains: the reference policy of its rewards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from edge_client.engines.lean.model.lora import Linear


class ReceivedFactors:
    """Copies of B and A of the linears as they are when this is made."""

    def __init__(self, linears: Mapping[str, Linear]) -> None:
        self._trained = [linear for linear in linears.values() if linear.leaves]
        self._received = [_copies(linear) for linear in self._trained]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the linears compute with them meanwhile. No gradient reaches them."""
        trained = [(linear.b, linear.a) for linear in self._trained]
        self._put(self._received)
        try:
            yield
        finally:
            self._put(trained)

    def _put(self, factors: list[tuple[Tensor, Tensor | None]]) -> None:
        for linear, (b, a) in zip(self._trained, factors, strict=True):
            linear.b, linear.a = b, a


def _copies(linear: Linear) -> tuple[Tensor, Tensor | None]:
    """B and A; the one that is not trained is not copied."""
    return tuple(  # type: ignore[return-value] # two, as written
        factor.detach().clone() if factor is not None and factor.requires_grad else factor
        for factor in (linear.b, linear.a)
    )
