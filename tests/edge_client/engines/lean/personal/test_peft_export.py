"""Local strands as a PEFT folder: with the global adapter's, or in its place, PEFT computes what the board does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from braid_common.base.t5_config import T5Config
from braid_common.text_form import DEFAULT_FORM
from edge_client.engines.lean.model.adapter_tensors import AdapterTensors, read_any_adapter
from edge_client.engines.lean.model.greedy import write_greedily
from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.model.model import Model
from edge_client.engines.lean.model.t5 import Cache
from edge_client.engines.lean.personal.local_strands import OwnStrands, write_own
from edge_client.engines.lean.personal.on_top import on_top
from edge_client.engines.lean.personal.peft_export import export_strands
from edge_client.state.personal_folder import PersonalFacts, StrandsFile
from quantize.base import load_base
from tests.fakes.engine.peft_reference import MARKS, MAX_NEW_TOKENS, asked, exported, of_peft, same, start
from wire.manifest import t5_weights
from wire.run import Base, Weight

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

pytestmark = MARKS

GLOBAL_RANKS, OWN_RANKS = (0, 3, 1, 5), (2, 0, 4)
"""In turn from weight to weight: some weights have both, some one of them, some neither."""


@pytest.fixture
def weights(reference: T5ForConditionalGeneration) -> tuple[Weight, ...]:
    return t5_weights(T5Config.parse(reference.config.to_dict()), "all")


@pytest.fixture
def global_folder(weights: tuple[Weight, ...], tmp_path: Path) -> Path:
    """A global adapter as `aggregator export` writes it."""
    return exported(weights, GLOBAL_RANKS, np.random.default_rng(5), tmp_path / "global")


@pytest.fixture
def strands(weights: tuple[Weight, ...]) -> dict[str, Factors]:
    generator = torch.Generator().manual_seed(6)
    drawn = {}
    for i, weight in enumerate(weights):
        if rank := OWN_RANKS[i % len(OWN_RANKS)]:
            b, a = (
                torch.randn(weight.rows, rank, generator=generator),
                torch.randn(rank, weight.columns, generator=generator),
            )
            drawn[weight.name] = Factors(0.3 * b, 0.3 * a)
    return drawn


@pytest.mark.parametrize("own", [{}, {"mix": 0.3}, {"is_alone": True}], ids=["beside", "mixed", "alone"])
def test_peft_computes_what_the_board_does(
    reference: T5ForConditionalGeneration,
    base_folder: Path,
    global_folder: Path,
    strands: dict[str, Factors],
    own: Mapping[str, float],
    tmp_path: Path,
) -> None:
    """First logits to rounding and greedy texts exactly, of base, global adapter and local strands of other ranks."""
    from peft import PeftModel

    facts = PersonalFacts("run", Base(model="small", digest="0" * 64), str(base_folder), "1" * 16, DEFAULT_FORM)
    file = StrandsFile(tmp_path / "kept" / "own", facts.key)
    write_own(file.path, file.key, OwnStrands(strands, **own))  # type: ignore[arg-type] (as parametrised)

    done = export_strands(file, facts, tmp_path / "own", lambda: global_folder)

    assert done.is_whole == bool(own)
    theirs = PeftModel.from_pretrained(copy.deepcopy(reference), str(tmp_path / "own"), adapter_name="own").eval()
    if not done.is_whole:
        theirs.load_adapter(str(global_folder), adapter_name="global")
        theirs.base_model.set_adapter(["global", "own"])  # PeftModel's own takes one name
    received = read_any_adapter(global_folder, ()).product_factors()
    logits, texts = of_the_board(base_folder, on_top(received, file))
    expected, written = of_peft(theirs, base_folder)
    assert texts == written
    assert same(logits, expected)
    without, _ = of_the_board(base_folder, received)
    assert float((logits - without).abs().max()) > 0.01 * float(expected.abs().max())


def of_the_board(base_folder: Path, factors: Mapping[str, Factors]) -> tuple[Tensor, list[list[int]]]:
    """First logits and greedy answers of the engine's own model."""
    base = load_base(base_folder, "fp32")
    model = Model(base, AdapterTensors(dict(factors)), "fp32")
    source, mask = asked(base_folder, base.config.vocab_size)
    logits = model.next_logits(start(), model.encode(source, mask), mask, Cache())
    return logits, [list(answer) for answer in write_greedily(model, source, mask, MAX_NEW_TOKENS)]
