"""adapter_config.json of a PEFT folder, as server and board write it.

peft computes W + (lora_alpha / r)·lora_B·lora_A per module. Every weight has a rank of its own, so every module
gets its r in `rank_pattern` and the same number in `alpha_pattern`: the scaling is 1 everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def lora_config(ranks: Mapping[str, int], base_model: str, revision: str = "") -> dict[str, Any]:
    """adapter_config.json for modules of these ranks, each with scaling 1."""
    # peft matches a pattern as a regular expression at the *end* of a module's name; ^ and escapes make it exact, so
    # that encoder.block.1 is not decoder.block.1 nor block.11.
    pattern = {f"^{re.escape(name)}": rank for name, rank in ranks.items()}
    most = max(ranks.values())
    return {
        "peft_type": "LORA",
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": base_model,
        "revision": revision or None,  # of the base; peft's AutoPeftModel passes it on
        "inference_mode": True,
        "r": most,
        "lora_alpha": most,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": list(ranks),
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
