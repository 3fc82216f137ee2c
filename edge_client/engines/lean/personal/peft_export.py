"""A PEFT folder of local strands, to be loaded beside the global adapter's own folder."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import save_file

from braid_common.lora_config import lora_config
from edge_client.base.adapter_form import MARKER
from edge_client.engines.lean.model.adapter_tensors import read_any_adapter
from edge_client.engines.lean.model.peft_folder import CONFIG_FILE, MODULE_PREFIX, WEIGHTS_FILE
from edge_client.engines.lean.personal.on_top import sound_strands
from edge_client.errors import ConfigError, disk_errors
from edge_client.state.personal_folder import PersonalFacts, StrandsFile


@dataclass(frozen=True, slots=True)
class Exported:
    """A folder that was written: of how many weights, bytes, and whether it is the board's whole model, which is loaded
    in the global adapter's place and not beside it."""

    n_weights: int
    size_bytes: int
    is_whole: bool


def export_strands(file: StrandsFile, facts: PersonalFacts, folder: Path, held_adapter: Callable[[], Path]) -> Exported:
    """Write the strands of a file as a PEFT folder, all or nothing.

    PEFT adds them to the base with scaling 1. Strands that are mixed with the global adapter (APFL) are written with
    their part of that, which `held_adapter` finds. A folder that is there must be empty. Raises ConfigError where it is
    not, or where the strands are damaged, and DiskError.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there and not empty", "name another folder with --out, or remove this one")
    own = sound_strands(file)
    is_mixed = own.mix is not None
    strands = own.over(read_any_adapter(held_adapter(), ()).product_factors() if is_mixed else {})
    tensors = {}
    for name, factors in strands.items():
        tensors[f"{MODULE_PREFIX}{name}.lora_A.weight"] = factors.a.contiguous()
        tensors[f"{MODULE_PREFIX}{name}.lora_B.weight"] = factors.b.contiguous()
    config = lora_config({n: len(f.a) for n, f in strands.items()}, facts.base.model, facts.base.revision)
    marker = {**asdict(facts.form), "run": facts.run_id, "personal": True}
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            save_file(tensors, staging / WEIGHTS_FILE, metadata={"format": "pt"})
            (staging / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            (staging / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
            size_bytes = (staging / WEIGHTS_FILE).stat().st_size
            staging.replace(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Exported(len(strands), size_bytes, is_whole=is_mixed or own.is_alone)
