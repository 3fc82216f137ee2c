"""The model of one job: frozen base and adapter, asked for losses, hidden states and logits."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import Batch
from edge_client.engines.lean.model.chunked_loss import head_loss, head_losses, head_token_losses
from edge_client.engines.lean.model.lora import Factors, Linear
from edge_client.engines.lean.model.t5 import T5, Cache
from edge_client.errors import ConfigError
from edge_client.jobs.messages import Compute
from edge_client.jobs.sizes import VOCABULARY_ROWS
from quantize.base import FrozenBase
from quantize.weight import FrozenWeight, Scratch
from wire.messages import Trains

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Model:
    """T5 over `base` with `adapter` on top, in the dtype `compute`.

    It computes where the base is. `trains_encoder` false runs the encoder without gradients; the base may then be its
    decoder alone, if the encoder's output is given. `checkpointing` as in T5, `trains` as in Linear. Raises ConfigError
    where the adapter names a weight that the base does not have or has in another shape.
    """

    def __init__(
        self,
        base: FrozenBase,
        adapter: AdapterTensors,
        compute: Compute,
        *,
        trains_encoder: bool = False,
        checkpointing: bool = False,
        trains: Trains = "b",
    ) -> None:
        self.config = base.config
        self._scratch = Scratch()
        self.linears = _linears(base, adapter, DTYPES[compute], self._scratch, trains)
        self.device = base.weights["shared"].device
        self._head = base.weights["lm_head"]
        self._trains_encoder = trains_encoder
        self._compute = DTYPES[compute]
        self._held_head: Tensor | None = None
        self._t5 = T5(
            self.config, self.linears, base.plain, base.weights["shared"], self._compute, checkpointing=checkpointing
        )

    def put_on(self, factors: Mapping[str, Factors]) -> None:
        """Put these low-rank matrices on the base, in place of all that were frozen there.

        `factors` is by module name, b (m, s) and a (s, n) of any dtype. Raises ConfigError as the constructor does, and
        leaves the model as it was then.
        """
        _check_names(factors, self.linears)
        cast = {
            name: _cast_to(name, linear, factors[name]) if name in factors else None
            for name, linear in self.linears.items()
        }
        for name, linear in self.linears.items():
            linear.set_frozen(cast[name])

    def encode(self, source: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (b, s, d) of the source; with gradients only if the encoder is trained. `mask` is False on
        padding, None where there is none."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains_encoder):
            return self._t5.encode(source.to(self.device), mask)

    def loss_sum(self, batch: Batch, encoded: Tensor | None = None) -> Tensor:
        """Summed negative log-likelihood of the batch's target tokens in nats, fp32 scalar.

        `encoded` (b, s, d) in the compute dtype is the encoder's output for the batch's source, if it is known.
        """
        return head_loss(self._hidden(batch, encoded), batch.labels, self._head, self._scratch)

    def token_losses(self, batch: Batch, encoded: Tensor | None = None) -> Tensor:
        """The negative log-likelihood of each target token by itself, fp32, example by example; with gradients."""
        return head_token_losses(self._hidden(batch, encoded), batch.labels, self._head, self._scratch)

    @torch.no_grad()
    def losses(self, batch: Batch, encoded: Tensor | None = None) -> Tensor:
        """The same sums for each example by itself: (b,) float64 on the CPU."""
        return head_losses(self._hidden(batch, encoded), batch.labels, self._head, self._scratch)

    def _hidden(self, batch: Batch, encoded: Tensor | None) -> Tensor:
        """The decoder's output (b, t, d) under teacher forcing."""
        mask = None if batch.padding is None else batch.padding.to(self.device)
        if encoded is None:
            encoded = self.encode(batch.source, mask)
        return self._t5.decode(batch.decoder_input.to(self.device), encoded, mask)

    @torch.no_grad()
    def next_logits(self, ids: Tensor, encoded: Tensor, mask: Tensor | None, cache: Cache) -> Tensor:
        """Logits (b, vocabulary) in the compute dtype of the token after `ids` (b, t), which are new to the cache."""
        hidden = self._t5.decode(ids, encoded, mask, cache)[:, -1]
        if self._held_head is not None:
            return hidden @ self._held_head.t()
        starts = range(0, self._head.shape[0], VOCABULARY_ROWS)  # a whole unpacked head is more than small boards have
        return torch.cat([hidden @ self._head_rows(start).t() for start in starts], 1)

    def _head_rows(self, start: int) -> Tensor:
        stop = min(start + VOCABULARY_ROWS, self._head.shape[0])
        return self._head.dense_rows(slice(start, stop), self._compute, self._scratch)

    @contextmanager
    def unpacked_decoder(self, spare_bytes: int) -> Iterator[None]:
        """Keep the decoder's weights unpacked meanwhile, if they fit into `spare_bytes`."""
        decoder = [linear for name, linear in self.linears.items() if name.startswith("decoder.")]
        rows, columns = self._head.shape
        if sum(linear.dense_bytes for linear in decoder) + rows * columns * self._compute.itemsize > spare_bytes:
            decoder = []
        else:
            self._held_head = self._head.dense(self._compute)
        for linear in decoder:
            linear.hold()
        try:
            yield
        finally:
            self._held_head = None
            for linear in decoder:
                linear.release()


def _linears(
    base: FrozenBase, adapter: AdapterTensors, dtype: torch.dtype, scratch: Scratch, trains: Trains
) -> dict[str, Linear]:
    """Every matrix of the blocks by module name; the embeddings are no linear maps."""
    weights = {name: weight for name, weight in base.weights.items() if name not in ("shared", "lm_head")}
    _check_names((*adapter.frozen, *adapter.basis, *adapter.start_b), weights)
    return {name: _linear(name, weight, adapter, dtype, scratch, trains) for name, weight in weights.items()}


def _check_names(names: Iterable[str], weights: Container[str]) -> None:
    """Raise ConfigError where the adapter has a weight that the base has not."""
    for name in names:
        if name not in weights:
            raise ConfigError(
                f"the adapter has weight {name}, the base has none of that name", "use the run's own base"
            )


def _cast_to(name: str, linear: Linear, factors: Factors) -> Factors:
    """The factors as the linear multiplies with them. Raises ConfigError where they do not fit its weight."""
    _check_sides(name, linear.shape, factors, None, None)
    return Factors(factors.b.to(linear.b.device, linear.compute), factors.a.to(linear.b.device, linear.compute))


def _linear(
    name: str, weight: FrozenWeight, adapter: AdapterTensors, dtype: torch.dtype, scratch: Scratch, trains: Trains
) -> Linear:
    frozen, basis, start_b = adapter.frozen.get(name), adapter.basis.get(name), adapter.start_b.get(name)
    _check_sides(name, weight.shape, frozen, basis, start_b)
    at = weight.device
    cast = None if frozen is None else Factors(frozen.b.to(at, dtype), frozen.a.to(at, dtype))
    if basis is not None:
        basis = basis.to(at, dtype) if trains == "b" else basis.to(at)
    if start_b is not None:
        start_b = start_b.to(at)
    return Linear(weight, dtype, cast, basis, scratch, start_b, trains)


def _check_sides(
    name: str, shape: tuple[int, int], frozen: Factors | None, basis: Tensor | None, start_b: Tensor | None
) -> None:
    rows, columns = shape
    fits = basis is None or basis.shape[1] == columns
    if start_b is not None:
        fits = fits and basis is not None and start_b.shape == (rows, basis.shape[0])
    if frozen is not None:
        fits = fits and frozen.b.shape == (rows, frozen.a.shape[0]) and frozen.a.shape[1] == columns
    if not fits:
        raise ConfigError(
            f"the adapter's factors of {name} do not fit a weight {list(shape)}", "use the run's own base"
        )


def start_training(linears: Mapping[str, Linear]) -> dict[str, Tensor]:
    """Let gradients reach what the round trains; these factors, B as "b.NAME" and A as "a.NAME"."""
    trained = {name: linear for name, linear in linears.items() if linear.rank}
    for linear in trained.values():
        linear.train()
    b = {f"b.{name}": linear.b for name, linear in trained.items() if linear.b.requires_grad}
    return b | {f"a.{name}": linear.a for name, linear in trained.items() if linear.a is not None}
