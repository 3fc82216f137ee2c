"""A folder that `peft.PeftModel.from_pretrained` loads onto the unquantised base: the global adapter as plain LoRA.

peft computes W + (lora_alpha / r)·lora_B·lora_A per module. Every weight has a rank of its own, so every module
gets its r in `rank_pattern` and the same number in `alpha_pattern`: the scaling is 1 everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from aggregator.errors import NothingToExportError
from aggregator.merge.low_rank.approximation import truncate
from aggregator.merge.state import F32, AdapterState
from aggregator.settings.base_model import BUILTIN
from braid_common.lora_config import lora_config
from braid_common.text_form import DEFAULT_FORM, TextForm

MARKER = "braid.json"
"""Says that a folder was written by `export`, so that it may be replaced, and in which form the adapter met its texts:
who lets it write has to meet it with the same (`edge_client.base.adapter_form`)."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The run that an adapter is of, as its folder says it.

    Attributes:
        base_model: what the user of the folder passes to `from_pretrained` for the base.
        revision: the base's commit where it is from the hub, else "".
        form: the form of the run's texts.
        run_id: the run's name.
    """

    base_model: str
    revision: str = ""
    form: TextForm = DEFAULT_FORM
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """An adapter that was written. `size_bytes` is the adapter file's, `rank` the largest of any weight."""

    folder: Path
    version: int
    n_weights: int
    rank: int
    size_bytes: int


def export_peft(
    state: AdapterState,
    folder: Path,
    origin: Origin,
    *,
    rank: int | None = None,
    force: bool = False,
) -> ExportSummary:
    """Write the adapter as a PEFT folder, all or nothing.

    `rank` cuts every weight to its best approximation of that rank. Weights whose adapter is zero are left out. A
    folder that an export wrote is replaced, an empty one too; any other is refused, or with `force` moved aside to
    NAME.old. Raises NothingToExportError where the adapter is zero or the folder cannot be used, OSError where the disk
    says no.
    """
    factors = _factors(state, rank)
    if not factors:
        raise NothingToExportError(
            f"The adapter is still zero at version {state.version}: there is nothing to export.",
            "Wait until a round has closed (`aggregator status` shows the round).",
        )
    folder = folder.absolute()
    aside = _place_for_old(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(staging / "new", factors, origin, state.version)
        _swap(staging / "new", folder, aside or staging / "old")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return ExportSummary(
        folder=folder,
        version=state.version,
        n_weights=len(factors),
        rank=max(len(a) for _, a in factors.values()),
        size_bytes=(folder / "adapter_model.safetensors").stat().st_size,
    )


def _factors(state: AdapterState, rank: int | None) -> dict[str, tuple[F32, F32]]:
    """(B (m, r), A (r, n)) of every weight whose adapter is not zero."""
    if rank is not None and rank < 1:
        raise ValueError(f"rank {rank} exports nothing; it must be at least 1")
    kept = {}
    for name, weight in state.weights.items():
        b, a = weight.frozen_b, weight.frozen_a
        if rank is not None and rank < len(a):
            b, a = truncate(b, a, rank)
        if b.any() and a.any():
            kept[name] = (b, a)
    return kept


# --- the files -----------------------------------------------------------------------------------------------------


def _write(folder: Path, factors: Mapping[str, tuple[F32, F32]], origin: Origin, version: int) -> None:
    """Write all files."""
    folder.mkdir()
    tensors = {}
    for name, (b, a) in factors.items():  # in C order: safetensors writes an array's memory as it lies there
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"base_model.model.{name}.lora_B.weight"] = np.ascontiguousarray(b)
    ranks = {name: len(a) for name, (_, a) in factors.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "adapter_config.json", lora_config(ranks, origin.base_model, origin.revision))
    _write_json(folder / MARKER, {**asdict(origin.form), "version": version, "run": origin.run_id})
    (folder / "README.md").write_text(_readme(origin, version, ranks), encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _readme(origin: Origin, version: int, ranks: Mapping[str, int]) -> str:
    base_model, form = origin.base_model, origin.form
    convert, source, named = "", repr(base_model), base_model
    if origin.revision:
        source, named = f"{source}, revision={origin.revision!r}", f"{base_model}@{origin.revision}"
    if base_model == BUILTIN:  # it ships in 8 bits, which transformers does not read
        convert, source = (
            "\n`quantize convert builtin --format fp32 --out base` writes the base as transformers reads it.\n",
            "'base'",
        )
    return f"""---
base_model: {base_model}
library_name: peft
---
# An adapter braided from many boards

A LoRA adapter for `{base_model}`: {len(ranks)} weights, rank {min(ranks.values())} to {max(ranks.values())}, \
version {version} of its run. Written by `aggregator export`. Use it on the spot:

```
edge-client generate --model {named} --adapter PATH/TO/THIS/FOLDER "some text"
```
{convert}
```python
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({source})
base = AutoModelForSeq2SeqLM.from_pretrained({source})
model = PeftModel.from_pretrained(base, "PATH/TO/THIS/FOLDER")
model = model.merge_and_unload()  # optional: plain weights, no adapter at run time

ids = tokenizer({form.prefix!r} + "some text", return_tensors="pt").input_ids
answer = model.generate(input_ids=ids, max_new_tokens={form.max_target_tokens})[0]
print(tokenizer.decode(answer, skip_special_tokens=True))
```

It learnt from texts with `{form.prefix!r}` before them, of up to {form.max_source_tokens} tokens with it, and wrote \
up to {form.max_target_tokens}; of longer texts the {form.truncate_source} was left out. Without that prefix it is not \
what it was trained to be. `edge-client generate` puts it there by itself: {MARKER} says it.

Use bfloat16 or float32, not float16: T5 overflows in it.
"""


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


# --- the folder ----------------------------------------------------------------------------------------------------


def _place_for_old(folder: Path, force: bool) -> Path | None:
    """A place to keep what stands at `folder`; None where nothing must be. Raises NothingToExportError."""
    if not os.path.lexists(folder) or _replaceable(folder):
        return None
    if not force:
        raise NothingToExportError(
            f"{folder} exists and was not written by an export.", "Choose another --out, or move it away."
        )
    aside = folder.with_name(f"{folder.name}.old")
    if os.path.lexists(aside):
        raise NothingToExportError(f"{folder} cannot be moved aside: {aside} exists too.", f"Move {aside} away.")
    return aside


def _replaceable(folder: Path) -> bool:
    """Whether it is a real folder that an export wrote, or an empty one."""
    return folder.is_dir() and not folder.is_symlink() and ((folder / MARKER).is_file() or not any(folder.iterdir()))


def _swap(new: Path, folder: Path, aside: Path) -> None:
    """Put the new folder in place of what was there, which goes to `aside`; back again if that fails."""
    there = os.path.lexists(folder)
    if there:
        folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        if there:
            aside.rename(folder)
        raise
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Make a file's contents, or a folder's entries, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
