"""The run's base model as the server sees it: a folder of files, a digest, and the weights that may be trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aggregator.errors import BaseModelError
from braid_common.atomic_file import write_atomically
from braid_common.base_files import (
    BaseFilesError,
    base_digest,
    base_file_names,
    digest_of_files,
    file_digest,
    read_t5_config,
)
from wire.errors import WireError
from wire.fields import PLAIN_FILE_NAME
from wire.manifest import t5_weights
from wire.run import Scope, Weight

BUILTIN = "builtin"
"""The base that ships with the project."""


@dataclass(frozen=True, slots=True)
class BaseFile:
    """One file of the base. `digest`: SHA-256 of its content."""

    size_bytes: int
    changed_ns: int
    digest: str


def resolve(model: str) -> Path:
    """The folder that `--model` names. Raises BaseModelError for a hub id: a server downloads nothing by itself."""
    if model == BUILTIN:
        try:
            from builtin_base import folder  # loaded only where it is used
        except ImportError as error:
            raise BaseModelError(
                "The builtin base is not part of this installation.", "Give --model a folder."
            ) from error
        return Path(folder())
    path = Path(model).expanduser()
    if not path.is_dir():
        raise BaseModelError(
            f"{model} is no folder on this machine.",
            f"Fetch it first (`hf download {model} --local-dir DIR`) and give --model DIR, or use --model {BUILTIN}.",
        )
    return path.resolve()


def trainable(folder: Path, scope: Scope, targets: Sequence[str]) -> tuple[Weight, ...]:
    """The run's manifest: weights of the base in this scope whose name ends in one of `targets`.

    Raises BaseModelError where the folder is no base model or not a FLAN-T5's.
    """
    try:
        base_file_names(folder)  # raises where there are no weights beside the config
        weights = t5_weights(read_t5_config(folder), scope)
    except (BaseFilesError, WireError) as error:
        raise BaseModelError(f"{folder}: {error}", "Give --model a folder with a FLAN-T5, or builtin.") from error
    return tuple(weight for weight in weights if weight.name.rsplit(".", 1)[-1] in targets)


def digest(folder: Path) -> str:
    """The digest that every board compares with its own. Reads all bytes once. Raises BaseModelError."""
    try:
        _names(folder)
        return base_digest(folder)
    except BaseFilesError as error:
        raise BaseModelError(str(error), "Give --model a folder with config.json and *.safetensors.") from error


def verify(folder: Path, expected: str, cache: Path) -> Mapping[str, BaseFile]:
    """The base's files by name, after a check that they are those that the run was made for.

    Reads only files whose size or inode has changed since `cache` was written. Raises BaseModelError.
    """
    try:
        known = _read_cache(cache)
        files = {name: _file(folder / name, known.get(name)) for name in _names(folder)}
    except (WireError, OSError) as error:
        raise BaseModelError(str(error), "Put the base model back, or correct model.path in run.toml.") from error
    if digest_of_files({name: file.digest for name, file in files.items()}) != expected:
        raise BaseModelError(
            f"{folder} is not the base model that this run was made for: its digest is another than model.digest.",
            "Put the old files back, or start a new run with `aggregator init`.",
        )
    if files != known:
        write_atomically(cache, json.dumps({name: asdict(file) for name, file in files.items()}).encode())
    return files


def _names(folder: Path) -> tuple[str, ...]:
    """The base's files, whose names boards can ask for."""
    names = base_file_names(folder)
    if odd := [name for name in names if not PLAIN_FILE_NAME.match(name)]:
        raise BaseFilesError(f"{folder} has a file {odd[0]!r}: rename it with letters, digits, dots and dashes alone")
    return names


def _file(path: Path, known: BaseFile | None) -> BaseFile:
    found = path.stat()
    # Not the time of modification: archives set it, so that a new model of equal size could look like the old one.
    if known is not None and (known.size_bytes, known.changed_ns) == (found.st_size, found.st_ctime_ns):
        return known
    return BaseFile(found.st_size, found.st_ctime_ns, file_digest(path))


def _read_cache(cache: Path) -> dict[str, BaseFile]:
    """The digests that were written last; empty where they cannot be read, for they can be made again."""
    try:
        rows = json.loads(cache.read_bytes())
        return {name: BaseFile(**row) for name, row in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
