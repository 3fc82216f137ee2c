"""Writing: text in, text out, by the base with or without an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from braid_common.text_form import DEFAULT_FORM, TextForm
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.evaluate import SPARE_SHARE
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_any_adapter
from edge_client.engines.lean.model.batches import source_batch
from edge_client.engines.lean.model.greedy import write_greedily
from edge_client.engines.lean.model.model import Model
from edge_client.errors import base_errors
from edge_client.host.board import probe_board
from edge_client.host.worker_memory import resident_bytes
from edge_client.jobs.messages import Compute, Format
from edge_client.state.personal_folder import StrandsFile
from quantize.base import load_base

BATCH = 8
"""Texts written side by side."""


class Writer:
    """A base and an adapter, loaded once.

    Args:
        base_folder: the base.
        adapter: a PEFT LoRA folder, such as `aggregator export` writes, an adapter file, or None for the bare base.
        format: of the base in memory, as in a plan.
        compute: dtype of the products, as in a plan.
        own: the board's local strands, to be put on top of the adapter; None for none.
        form: how texts are cut, and the words put before them.
        spare_bytes: memory that may hold unpacked weights, which makes writing faster. None measures what the board can
            spare when the writing begins.

    Raises:
        BaseModelError: the base cannot be used.
        ConfigError: the adapter cannot.
    """

    def __init__(
        self,
        base_folder: Path,
        adapter: Path | None = None,
        *,
        format: Format = "fp32",
        compute: Compute = "fp32",
        own: StrandsFile | None = None,
        form: TextForm = DEFAULT_FORM,
        spare_bytes: int | None = None,
    ) -> None:
        with base_errors("name another folder with --model"):
            base = load_base(base_folder, format)
        tensors = AdapterTensors() if adapter is None else read_any_adapter(adapter, base.weights)
        if own is not None:
            from edge_client.engines.lean.personal.on_top import on_top

            tensors = AdapterTensors(on_top(tensors.product_factors(), own))
        self._model = Model(base, tensors, compute)
        self._tokeniser = Tokeniser(base_folder, self._model.config.eos_id, base.config.vocab_size)
        self._form = form
        self._spare_bytes = spare_bytes

    def cuts(self, text: str) -> bool:
        """Whether a text is longer than the form allows, so that only a part of it is read."""
        return self._tokeniser.cuts(text, self._form)

    def write(self, texts: Sequence[str]) -> list[str]:
        """One answer per text, in their order; each text gets the form's prefix."""
        sources = [self._tokeniser.source(text, self._form) for text in texts]
        written: list[list[int]] = []
        with self._model.unpacked_decoder(spare_now() if self._spare_bytes is None else self._spare_bytes):
            for first in range(0, len(sources), BATCH):
                batch = source_batch(sources[first : first + BATCH], self._model.config.pad_id)
                written += write_greedily(self._model, *batch, self._form.max_target_tokens)
        return [self._tokeniser.decode(ids) for ids in written]


def spare_now() -> int:
    """Bytes that unpacked weights may take on this board now, with everything else loaded."""
    return int(SPARE_SHARE * max(0, probe_board().memory_bytes - resident_bytes()))
