"""The numbers of a base's config.json: from its folder, which needs no weights for a plan, or of a FLAN-T5 by name."""

from __future__ import annotations

from pathlib import Path

from braid_common.base.files import read_t5_config
from braid_common.base.t5_config import FLAN_T5, T5Config
from edge_client.base.locate import require_whole, resolve_config
from edge_client.errors import base_errors
from wire.manifest import t5_weights

_HINT = "give a folder that holds a FLAN-T5's config.json, or one of " + ", ".join(FLAN_T5)


def base_config(model: str) -> T5Config:
    """The config of `--model`: a folder with config.json, "builtin", a name in FLAN_T5, or a hub id.

    Raises BaseModelError where there is none, where it is not a gated T5's, or where weights beside it are truncated.
    """
    if model in FLAN_T5 and not Path(model).is_dir():
        return FLAN_T5[model]
    folder = resolve_config(model)
    require_whole(folder)
    with base_errors(_HINT):
        config = read_t5_config(folder)
        t5_weights(config, "all")  # raises where the protocol could not list them
    return config
