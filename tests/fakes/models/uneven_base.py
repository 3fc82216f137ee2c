"""A base on disk with random weights, of UNEVEN_T5's shape."""

from __future__ import annotations

import json
from pathlib import Path

from braid_common.base.t5_config import T5Config
from tests.fakes.runs import UNEVEN_T5


def write_uneven_base(folder: Path) -> None:
    """Write config.json and weights; there is no tokenizer, so nothing that reads text can use it."""
    import torch
    from safetensors.torch import save_file

    from braid_common.base.t5_layout import tensor_shapes

    (folder / "config.json").write_text(json.dumps(dict(UNEVEN_T5)))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * shape[1] ** -0.5
        for name, shape in tensor_shapes(T5Config.parse(UNEVEN_T5)).items()
    }
    save_file(tensors, folder / "model.safetensors")
