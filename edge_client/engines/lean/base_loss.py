"""The loss of a bare base on a few texts: what `quantize report` says of each format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from braid_common.base.files import BaseFilesError
from braid_common.example import Example
from braid_common.text_form import TextForm
from braid_common.units import show_size
from edge_client.data.tokeniser import Tokeniser
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors
from edge_client.engines.lean.model.batches import micro_batches
from edge_client.engines.lean.model.model import Model
from edge_client.errors import BaseModelError
from edge_client.host.board import probe_board
from quantize.base import load_base
from quantize.checkpoint import open_checkpoint
from quantize.formats import Format
from quantize.writer import written_bytes

FORM = TextForm(max_source_tokens=512, max_target_tokens=128)
"""Longer texts are cut, as in training."""

BATCH = 4
"""Texts that are computed together."""


@torch.no_grad()
def base_loss(folder: Path, format: Format, texts: Sequence[tuple[str, str]]) -> tuple[float, int]:
    """Loss in nats per target token of the base in `folder`, and the number of those tokens.

    The base is held in `format` and computed in fp32. `texts` are pairs of source and target; each source gets the
    prefix of training. Raises BaseFilesError where the base or its tokenizer cannot be used, or has no room in memory.
    """
    needs_bytes, has_bytes = written_bytes(open_checkpoint(folder), format), probe_board().memory_bytes
    if needs_bytes > has_bytes:
        raise BaseFilesError(f"in {format} the base takes {show_size(needs_bytes)}, free are {show_size(has_bytes)}")
    try:
        base = load_base(folder, format)
        tokeniser = Tokeniser(folder, base.config.eos_id, base.config.vocab_size)
        model = Model(base, AdapterTensors(), "fp32")
        examples = [Example(id="", group="", source=source, target=target) for source, target in texts]
        pairs = [tokeniser.pair(example, FORM) for example in examples]
        total, n_tokens = 0.0, 0
        for batch in micro_batches(pairs, BATCH, base.config.pad_id, base.config.start_id):
            total, n_tokens = total + float(model.loss_sum(batch)), n_tokens + batch.n_target_tokens
    except BaseModelError as error:
        raise BaseFilesError(error.message) from error
    return total / n_tokens, n_tokens
