"""A PEFT LoRA folder as factors per weight, which add to the base exactly what PEFT adds.

A module's rank and α, and which modules have an adapter at all, follow peft 0.21's own rules: `_create_and_replace` in
its tuners/lora/model.py and `check_target_module_exists` in its tuners/tuners_utils.py. What is more than W + s·B·A on
the base's own weights is refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from torch import Tensor

from edge_client.engines.lean.model.lora import Factors
from edge_client.errors import ConfigError

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
MODULE_PREFIX = "base_model.model."
SIDES = ("lora_A", "lora_B")

NOT_PLAIN = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "alora_invocation_tokens",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "fan_in_fan_out",
)
"""Settings under which the model is not W + s·B·A. They must be absent, null, false or empty."""

INITS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights. With any other (PiSSA, OLoRA, CorDA, LoftQ …) PEFT changes the base when it loads."""

MERGE_IT = "let PEFT merge it into its base (merge_and_unload, then save_pretrained) and name that folder with --model"
SAVE_IT_AGAIN = "export or save the adapter again, and copy the whole folder"

Value = TypeVar("Value", int, float)
Rank = Annotated[int, msgspec.Meta(ge=1)]


class LoraConfig(msgspec.Struct, frozen=True):
    """The part of adapter_config.json that decides what is added where. Defaults are those of PEFT's LoraConfig."""

    peft_type: str = "LORA"
    r: Rank = 8
    lora_alpha: float = 8
    rank_pattern: dict[str, Rank] | None = None
    alpha_pattern: dict[str, float] | None = None
    use_rslora: bool = False
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    init_lora_weights: bool | str | None = True
    bias: str = "none"


def read_peft(folder: Path, weights: Collection[str]) -> dict[str, Factors]:
    """Read the adapter that `folder` holds for a base with these weights.

    Returns per module B (m, r) times PEFT's scaling, and A (r, n), fp32. Raises ConfigError where the folder is damaged
    or incomplete, where tensors and config disagree, and where PEFT would compute more than W + s·B·A.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} has no {name}", "name a folder that `aggregator export` wrote")
    config, tensors = _load(folder)
    modules = _modules(tensors)
    try:
        factors = {name: _factors(name, tensors, config) for name in modules}
        targets = {name for name in (*weights, *modules) if is_target(name, config)}
    except re.error as error:
        raise ConfigError(
            f"a pattern in {folder / CONFIG_FILE} is no regular expression: {error}", SAVE_IT_AGAIN
        ) from None
    if untold := modules - targets:
        raise ConfigError(f"the adapter has factors of {min(untold)}, which its config does not target", SAVE_IT_AGAIN)
    if missing := targets - modules:
        raise ConfigError(f"the adapter's config targets {min(missing)}, but its factors are missing", SAVE_IT_AGAIN)
    return factors


def module_rank(name: str, config: LoraConfig) -> int:
    return _of_first_match(name, config.rank_pattern or {}, config.r)


def module_scale(name: str, config: LoraConfig) -> float:
    """The factor before B·A: α/r, under rsLoRA (arXiv 2312.03732) α/√r."""
    rank = module_rank(name, config)
    alpha = _of_first_match(name, config.alpha_pattern or {}, config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def is_target(name: str, config: LoraConfig) -> bool:
    """Whether PEFT puts an adapter on the module."""
    excluded, targets = config.exclude_modules or [], config.target_modules or []
    if re.fullmatch(excluded, name) if isinstance(excluded, str) else _ends_as(name, excluded):
        return False
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return name in targets or (_ends_as(name, targets) and _in_chosen_layers(name, config))


def _of_first_match(name: str, patterns: Mapping[str, Value], default: Value) -> Value:
    """The value of the first pattern that matches the module's name, or the end of it after a dot."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def _ends_as(name: str, ends: Sequence[str]) -> bool:
    return any(f".{name}".endswith(f".{end}") for end in ends)


def _in_chosen_layers(name: str, config: LoraConfig) -> bool:
    chosen, patterns = config.layers_to_transform, config.layers_pattern or [r"[^.]*"]
    if chosen is None or chosen == []:
        return True
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if found := re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", name):  # the first number in the name is the layer's
            return int(found[found.re.groups]) in ([chosen] if isinstance(chosen, int) else chosen)
    return False


def _load(folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Config and tensors of a folder that holds both. Raises ConfigError unless they can be those of plain LoRA."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=dict[str, Any])
        config = msgspec.convert(settings, LoraConfig)
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(
            f"{folder} is no PEFT LoRA folder, or damaged: {error}", "name a folder that `aggregator export` wrote"
        ) from error
    if config.peft_type != "LORA":
        raise ConfigError(f"the adapter's peft_type is {config.peft_type}, not LORA", MERGE_IT)
    if more := [key for key in NOT_PLAIN if settings.get(key)]:
        raise ConfigError(f"the adapter is not plain LoRA: its config sets {more[0]}", MERGE_IT)
    if config.bias != "none":
        raise ConfigError(f"the adapter brings biases (bias = {config.bias!r}), which T5 does not have", MERGE_IT)
    if config.init_lora_weights not in INITS_THAT_KEEP_THE_BASE:
        raise ConfigError(f"the adapter changes its base (init_lora_weights = {config.init_lora_weights!r})", MERGE_IT)
    return config, tensors


def _modules(tensors: Mapping[str, Tensor]) -> set[str]:
    """Names of the modules that have factors. Raises ConfigError where a tensor is none, or comes without the other."""
    sides: dict[str, set[str]] = {}
    for key in tensors:
        found = re.fullmatch(rf"{re.escape(MODULE_PREFIX)}(.+)\.(lora_[AB])\.weight", key)
        if found is None:
            raise ConfigError(f"the adapter holds {key}, which is no LoRA factor of a linear map", MERGE_IT)
        sides.setdefault(found[1], set()).add(found[2])
    for name, found_sides in sides.items():
        if absent := set(SIDES) - found_sides:
            raise ConfigError(f"the adapter's {min(absent)} of {name} is missing", SAVE_IT_AGAIN)
    return set(sides)


def _factors(name: str, tensors: Mapping[str, Tensor], config: LoraConfig) -> Factors:
    a, b = (tensors[f"{MODULE_PREFIX}{name}.{side}.weight"] for side in SIDES)
    rank = module_rank(name, config)
    fit = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == rank
    if not (fit and a.is_floating_point() and b.is_floating_point()):
        raise ConfigError(
            f"the factors of {name}, {list(b.shape)} and {list(a.shape)}, are not floats of its rank {rank}",
            SAVE_IT_AGAIN,
        )
    return Factors(b.float() * module_scale(name, config), a.float())
