"""The weights of a base's folder: whether every tensor that config.json asks for is there, before one is read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

from braid_common.base.files import BaseFilesError, weight_file_names
from braid_common.base.safetensors_header import StoredTensor, read_header
from braid_common.base.t5_config import T5Config
from braid_common.base.t5_layout import HEAD, is_matrix, tensor_shapes

STORAGE_KEY = "braid_storage"
"""Key in config.json that names how the matrices are stored: absent (plain floats), ROWS_STORAGE or BLOCKS_STORAGE."""
ROWS_STORAGE = "int8-rows"
"""int8 matrices `NAME` with float32 `NAME.row_scale` of shape (rows,): value = int8 · row_scale[row]."""
BLOCKS_STORAGE = "nf4-blocks"
"""Matrices are uint8 `NAME` of shape (⌈rows·columns/2⌉,) with float32 `NAME.absmax` of shape (⌈rows·columns/64⌉,), as
Nf4Weight holds them; the embeddings are int8 rows as above."""
SCALE_SUFFIX = ".row_scale"
ABSMAX_SUFFIX = ".absmax"
STORED_FORMATS: Mapping[str, str] = MappingProxyType({ROWS_STORAGE: "int8", BLOCKS_STORAGE: "nf4"})
BLOCK_VALUES = 64
"""Consecutive values that share one absmax in nf4: bitsandbytes' default, and the QLoRA paper's."""
FLOATS: Mapping[str, str] = MappingProxyType({"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"})
"""Our name of each float type that a base may be stored in, by safetensors' name."""
MAX_NAMED = 3
"""Tensors that one error names; a wrong model would list hundreds."""

_DUPLICATES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # of `shared`, in some checkpoints
# Held by old T5 checkpoints and ignored by every T5 since transformers 2.
_IGNORED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"

_Stored = dict[str, tuple[tuple[int, ...], tuple[str, ...]]]
"""Shape in the file and possible types, by name."""


def read_weights(folder: Path, config: T5Config, config_json: Mapping[str, Any]) -> dict[str, StoredTensor]:
    """Everything in the files of a base's weights, by its name there. Only their headers are read.

    Raises BaseFilesError for files that are missing, truncated or damaged, for tensors that are missing, extra,
    misshapen or of another type, and for a `braid_storage` that is not known.
    """
    storage = config_json.get(STORAGE_KEY)
    if not (storage is None or (isinstance(storage, str) and storage in STORED_FORMATS)):
        raise BaseFilesError(f"{folder} is stored as {storage!r}, which this version does not know; update braid")
    tensors = _named_once(folder)
    _require_fitting(folder, config, storage, tensors)
    return tensors


def packed_sizes(n_values: int) -> tuple[int, int]:
    """Bytes of codes, and blocks, that `n_values` take in nf4."""
    return -(-n_values // 2), -(-n_values // BLOCK_VALUES)


def _named_once(folder: Path) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in weight_file_names(folder):
        for tensor in read_header(folder / file):
            if tensor.name in tensors:
                first = tensors[tensor.name].path.name
                raise BaseFilesError(
                    f"{folder} holds {tensor.name} twice, in {first} and {file}; copy or download the base again"
                )
            tensors[tensor.name] = tensor
    if "shared.weight" not in tensors and _DUPLICATES[0] in tensors:
        raise BaseFilesError(
            f"{folder} holds {_DUPLICATES[0]} but not shared.weight; save it again with transformers' save_pretrained"
        )
    return tensors


def _require_fitting(folder: Path, config: T5Config, storage: str | None, tensors: Mapping[str, StoredTensor]) -> None:
    shapes = tensor_shapes(config)
    optional = dict.fromkeys(_DUPLICATES, shapes["shared.weight"])
    optional[_IGNORED] = shapes["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    if config.may_tie:
        optional[HEAD] = shapes.pop(HEAD)
    needed = _as_stored(shapes, tensors, storage)
    allowed = needed | _as_stored(optional, tensors, storage)
    _require_none(folder, "lacks", sorted(needed.keys() - tensors.keys()))
    _require_none(folder, "has unknown", sorted(tensors.keys() - allowed.keys()))
    for name, tensor in tensors.items():
        shape, dtypes = allowed[name]
        if tensor.dtype not in dtypes:
            needed_dtypes = "a float type" if len(dtypes) > 1 else dtypes[0]
            raise BaseFilesError(
                f"{folder}: {name} is stored as {tensor.dtype}, {needed_dtypes} is needed; take the model's own "
                "weights, not quantised by another tool"
            )
        if tensor.shape != shape:
            raise BaseFilesError(
                f"{folder}: {name} has shape {list(tensor.shape)}, config.json says {list(shape)}; copy or download "
                "the base again"
            )


def _as_stored(
    shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, StoredTensor], storage: str | None
) -> _Stored:
    """Tensors that the files must hold for parameters of these shapes; `tensors` tell which of them are in codes."""
    stored: _Stored = {}
    for name, shape in shapes.items():
        dtype = tensors[name].dtype if name in tensors else ""
        if dtype == "I8" and storage is not None and len(shape) == 2:
            stored |= {name: (shape, ("I8",)), name + SCALE_SUFFIX: (shape[:1], ("F32",))}
        elif dtype == "U8" and storage == BLOCKS_STORAGE and is_matrix(name):
            n_codes, n_blocks = packed_sizes(prod(shape))
            stored |= {name: ((n_codes,), ("U8",)), name + ABSMAX_SUFFIX: ((n_blocks,), ("F32",))}
        else:
            stored[name] = shape, tuple(FLOATS)
    return stored


def _require_none(folder: Path, verb: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        raise BaseFilesError(
            f"{folder} {verb} tensor {', '.join(names[:MAX_NAMED])}{more}; its files and config.json do not belong "
            "together, or it is no T5 with a gated feed-forward"
        )
