"""The frozen encoder over many sources at once, with one of its blocks in memory at a time.

Blocks are read from the base's files one after the other and each is run over all sources of a chunk, whose residual
streams wait in memory without padding. So the encoder is never resident whole, and what is read is spread over many
tokens: more memory means larger chunks, not more blocks. Where a base is in memory all the same, its blocks are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edge_client.engines.lean.model.lora import Linear
from edge_client.engines.lean.model.t5 import T5
from edge_client.errors import base_errors
from edge_client.host.worker_memory import return_free_memory
from edge_client.jobs.sizes import LENGTH_STEP, TOKENS_PER_BATCH
from quantize.base import FrozenBase, load_base
from quantize.weight import DenseWeight

HIDDEN_BYTES = 64 << 20
"""Residual streams of one chunk: 32,768 tokens of d_model 512 in fp32."""


Source = tuple[int, ...]

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """An encoder that is to run: the base's folder, its weights' format in memory, and where and in what it computes.

    Attributes:
        folder: of the base.
        format: of its weights, as in a plan.
        compute: dtype of the products, fp32 or bf16.
        device: where they are computed.
        kept: the same base in that format, where it is in memory; the folder's files are not read then.
    """

    folder: Path
    format: str
    compute: torch.dtype
    device: torch.device = _CPU
    kept: FrozenBase | None = None


def encode_sources(
    spec: EncoderSpec,
    sources: Sequence[Source],
    store: Callable[[Source, Tensor], object],
    *,
    tell: Callable[[int, int], object] = lambda n_done, n_tokens: None,
    check_stop: Callable[[], object] = lambda: None,
    hidden_bytes: int = HIDDEN_BYTES,
) -> None:
    """Encode sources with the frozen encoder and hand each one's output to `store`.

    An output is what Model.encode gives for the source, to the last bit where the same sources run together, to
    rounding otherwise. Batches are a function of the sources alone, not of their order; the longest run first. At most
    one chunk's work is lost when this is interrupted.

    Args:
        spec: which encoder.
        sources: token ids, none empty, eos at the end.
        store: gets a source and its output (tokens, d_model) in the compute dtype, on the CPU, a view of the chunk.
        tell: gets how many of the sources the work done so far comes to, and the tokens done since the last call; they
            reach len(sources) and all tokens together with the last batch.
        check_stop: called before every batch, may raise.
        hidden_bytes: memory for residual streams, of which one source at least is held.

    Raises:
        BaseModelError: the base is missing or damaged.
    """
    if not sources:
        return
    encoder = _Encoder(spec)
    in_order = sorted(sources, key=lambda ids: (-len(ids), ids))
    work = _Work(len(sources), sum(map(len, sources)) * encoder.n_blocks, encoder.n_blocks, tell)
    chunk_tokens = hidden_bytes // (encoder.d_model * spec.compute.itemsize)
    for chunk in _chunks(in_order, chunk_tokens):
        stream = encoder.run(chunk, check_stop, work.count)
        for ids, hidden in zip(chunk, torch.split(stream, [len(ids) for ids in chunk]), strict=True):
            store(ids, hidden)
        del stream, hidden  # views of the chunk: the next one would be a second beside it


@dataclass(slots=True)
class _Work:
    """Counts in tokens × blocks, so that progress is even, and tells in sources and tokens."""

    n_sources: int
    total: int
    n_blocks: int
    tell: Callable[[int, int], object]
    done: int = 0

    def count(self, n_tokens: int) -> None:
        """`n_tokens` have passed one more block."""
        told_tokens = self.done // self.n_blocks
        self.done += n_tokens
        self.tell(self.n_sources * self.done // self.total, self.done // self.n_blocks - told_tokens)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Neighbours that run together: rows first…last − 1 of the stream, each source padded to `width` tokens."""

    first: int
    lengths: tuple[int, ...]
    width: int

    @property
    def last(self) -> int:
        return self.first + sum(self.lengths)

    @property
    def is_padded(self) -> bool:
        return min(self.lengths) < self.width


class _Encoder:
    """The encoder without its blocks, which are loaded one at a time while it runs."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self._compute, self._device = spec.compute, spec.device
        base = self._load(_is_encoder_table)
        self.n_blocks, self.d_model = base.config.n_encoder_blocks, base.config.d_model
        self._linears: dict[str, Linear] = {}
        plain = {name: table.to(spec.device) for name, table in base.plain.items()}
        no_embedding = DenseWeight(torch.empty(0, self.d_model))  # it is looked up here and gone before the blocks
        self._t5 = T5(base.config, self._linears, plain, no_embedding, spec.compute)

    @torch.no_grad()
    def run(self, chunk: Sequence[Source], check_stop: Callable[[], object], count: Callable[[int], object]) -> Tensor:
        """Outputs (tokens of all sources, d_model) of sources sorted by length."""
        batches = list(_batches([len(ids) for ids in chunk]))
        stream = self._embed(chunk)
        for i in range(self.n_blocks):
            self._take_block(i)
            for batch in batches:
                check_stop()
                self._run_block(i, stream, batch)
                count(batch.last - batch.first)
            self._linears.clear()
            return_free_memory()
        for batch in batches:  # in parts: the norm works in fp32
            rows = slice(batch.first, batch.last)
            stream[rows] = self._t5.encoder_end(stream[rows])
        return stream.cpu()

    def _embed(self, chunk: Sequence[Source]) -> Tensor:
        shared = self._load(lambda name: name == "shared").weights["shared"]
        stream = torch.empty(sum(map(len, chunk)), self.d_model, dtype=self._compute, device=self._device)
        first = 0
        for ids in chunk:
            stream[first : first + len(ids)] = shared.rows_of(torch.tensor(ids), self._compute)
            first += len(ids)
        return stream

    def _take_block(self, i: int) -> None:
        """Unpack the weights of block `i`, each once for the whole chunk."""
        weights = dict(self._load(lambda name: name.startswith(f"encoder.block.{i}.")).weights)
        while weights:
            name, weight = weights.popitem()
            dense = DenseWeight(weight.dense(self._compute).to(self._device))
            no_strands = torch.empty(0, weight.shape[1], dtype=self._compute, device=self._device)
            self._linears[name] = Linear(dense, self._compute, basis=no_strands)

    def _run_block(self, i: int, stream: Tensor, batch: _Batch) -> None:
        rows, shape = slice(batch.first, batch.last), (len(batch.lengths), batch.width)
        if not batch.is_padded:
            x = stream[rows].view(*shape, self.d_model)
            stream[rows] = self._t5.encoder_block(i, x, self._t5.encoder_bias(batch.width, None)).flatten(0, 1)
            return
        # The stream has no padding: rows are spread out for the block, and gathered again by the same mask.
        lengths = torch.tensor(batch.lengths, device=self._device)
        mask = torch.arange(batch.width, device=self._device) < lengths[:, None]
        x = stream.new_zeros(*shape, self.d_model)
        x[mask] = stream[rows]
        stream[rows] = self._t5.encoder_block(i, x, self._t5.encoder_bias(batch.width, mask))[mask]

    def _load(self, wanted: Callable[[str], bool]) -> FrozenBase:
        if self._spec.kept is not None:
            return self._spec.kept.part(wanted)
        with base_errors():
            return load_base(self._spec.folder, self._spec.format, wanted=wanted)


def _is_encoder_table(name: str) -> bool:
    """Norm scales and position tables keep their ".weight" when load_base asks; matrices do not."""
    return name.startswith("encoder.") and name.endswith(".weight")


def _chunks(sources: Sequence[Source], max_tokens: int) -> Iterator[list[Source]]:
    """Consecutive groups of at most `max_tokens`, of one source at least."""
    chunk: list[Source] = []
    n_tokens = 0
    for ids in sources:
        if chunk and n_tokens + len(ids) > max_tokens:
            yield chunk
            chunk, n_tokens = [], 0
        chunk.append(ids)
        n_tokens += len(ids)
    yield chunk


def _batches(lengths: Sequence[int]) -> Iterator[_Batch]:
    """Divide sorted lengths: neighbours of the same padded length join, up to TOKENS_PER_BATCH."""
    first = 0
    for width, group in itertools.groupby(lengths, _padded):
        size = max(1, TOKENS_PER_BATCH // width)
        while part := tuple(itertools.islice(group, size)):
            yield _Batch(first, part, width)
            first += sum(part)


def _padded(length: int) -> int:
    return -(-length // LENGTH_STEP) * LENGTH_STEP
