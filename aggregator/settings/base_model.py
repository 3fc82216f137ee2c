"""The run's base model as the server sees it: a folder of files, a digest, and the weights that may be trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from aggregator.errors import BaseModelError, DiskError
from aggregator.settings.config import ModelSection
from aggregator.settings.finite_weights import floats, require_finite
from braid_common.atomic_file import write_atomically
from braid_common.base.check import CheckedBase, check_base
from braid_common.base.files import (
    TOKENIZER_FILE,
    BaseFilesError,
    base_digest,
    base_file_names,
    digest_of_files,
    file_digest,
)
from braid_common.hub.cache import is_whole
from braid_common.hub.errors import HubDiskError, HubError
from braid_common.hub.fetch import fetch
from braid_common.hub.model_id import HubId, parse_hub_id
from braid_common.hub.progress import StreamProgress
from braid_common.units import show_size
from wire.errors import WireError
from wire.fields import PLAIN_FILE_NAME
from wire.limits import MAX_BASE_FILES
from wire.manifest import t5_weights
from wire.run import Scope, Weight

BUILTIN = "builtin"
"""The base that ships with the project."""

HINT = "Give --model a FLAN-T5's folder, or builtin; docs/guide/bases.md says which models work."
"""What helps where a base cannot be used, beside what the sentence about it says."""


MANY_BYTES = 1 << 30
"""Bytes that take seconds to read: less is read without a word."""


@dataclass(frozen=True, slots=True)
class BaseFile:
    """One file of the base. `digest`: SHA-256 of its content."""

    size_bytes: int
    changed_ns: int
    digest: str


@dataclass(frozen=True, slots=True)
class Found:
    """A base that `--model` names: its folder here, the name that boards pass on, and its commit if from the hub."""

    folder: Path
    id: str
    revision: str = ""


def resolve(model: str) -> Found:
    """The base that `--model` names: builtin, a folder, or a hub id, ORG/NAME or ORG/NAME@REVISION, which is fetched.

    Raises BaseModelError, or DiskError where the hub's cache cannot be written.
    """
    if model == BUILTIN:
        try:
            from builtin_base import folder  # loaded only where it is used
        except ImportError as error:
            raise BaseModelError(
                "The builtin base is not part of this installation.", "Give --model a folder."
            ) from error
        return Found(Path(folder()), model)
    path = Path(model).expanduser()
    if path.is_dir():
        return Found(path.resolve(), model)
    hub_id = None if path.exists() else parse_hub_id(model)
    if hub_id is None:
        raise BaseModelError(
            f"{model} is no folder on this machine.",
            f"Give --model a folder, a hub id such as google/flan-t5-small, or {BUILTIN}.",
        )
    return _from_hub(hub_id, f"{model} is no folder on this machine, and ")


def restored(model: ModelSection) -> ModelSection:
    """The model with its folder there again: a base from the hub is fetched anew where its cache has been removed.

    Raises BaseModelError, or DiskError where the hub's cache cannot be written.
    """
    hub_id = parse_hub_id(model.id) if model.revision else None
    if hub_id is None or is_whole(model.path):
        return model
    found = _from_hub(hub_id.at(model.revision), f"{model.path} lacks files of the base, and ")
    return replace(model, path=found.folder)


def _from_hub(model: HubId, why: str) -> Found:
    """A base from the hub, its commit settled. `why` it is asked for begins the sentence of what goes wrong."""
    try:
        fetched = fetch(model, StreamProgress())
    except HubDiskError as error:
        raise DiskError(f"{error.message}.", _sentence(error.hint)) from error
    except HubError as error:
        raise BaseModelError(f"{why}{error.message}.", _sentence(error.hint)) from error
    return Found(fetched.folder, model.repo, fetched.model.revision)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(("?", ".")) else ".")


def trainable(folder: Path, scope: Scope, targets: Sequence[str]) -> tuple[Weight, ...]:
    """The run's manifest: weights of the base in this scope whose name ends in one of `targets`.

    Raises BaseModelError where the folder is no base that boards can train on.
    """
    weights = t5_weights(_checked(folder).config, scope)
    return tuple(weight for weight in weights if weight.name.rsplit(".", 1)[-1] in targets)


def digest(folder: Path) -> str:
    """The digest that every board compares with its own, of a base that boards can train on.

    Reads all bytes twice: the digest says that they stay what they are, so what is in them is judged here alone.
    Raises BaseModelError.
    """
    base = _checked(folder)
    _require_readable(folder / TOKENIZER_FILE)
    try:
        files_bytes = sum((folder / name).stat().st_size for name in base_file_names(folder))
        read = told_of(files_bytes + sum(tensor.size_bytes for tensor in floats(base.tensors.values())))
        require_finite(base.tensors.values(), read)
        return base_digest(folder, read)
    except BaseFilesError as error:
        raise BaseModelError(str(error), HINT) from error


def _require_readable(tokenizer: Path) -> None:
    """Read a tokenizer.json as boards will, where this machine has the library for it; `check_base` has read the rest.

    Raises BaseModelError.
    """
    try:
        from tokenizers import Tokenizer  # no part of a server's installation
    except ImportError:
        return
    try:
        Tokenizer.from_file(str(tokenizer))
    except Exception as error:
        raise BaseModelError(f"{tokenizer} cannot be read ({error}): download the model again", HINT) from error


def told_of(total_bytes: int) -> Callable[[int], object]:
    """A listener to bytes that are read, which tells a person where there are many."""
    if total_bytes < MANY_BYTES:
        return lambda n_bytes: None
    progress, done_bytes = StreamProgress(end="read"), 0
    progress.say(f"reading the base, its values and then its digest: {show_size(total_bytes)} in all")

    def read(n_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += n_bytes
        progress.moved(done_bytes, total_bytes)

    return read


def verify(folder: Path, expected: str, cache: Path) -> Mapping[str, BaseFile]:
    """The base's files by name, after a check that they are those that the run was made for.

    Reads only files whose size or inode has changed since `cache` was written. Raises BaseModelError.
    """
    try:
        known = _read_cache(cache)
        files = {name: _file(folder / name, known.get(name)) for name in _names(folder)}
    except (BaseFilesError, OSError) as error:
        raise BaseModelError(str(error), "Put the base model back, or correct model.path in run.toml.") from error
    if digest_of_files({name: file.digest for name, file in files.items()}) != expected:
        raise BaseModelError(
            f"{folder} is not the base model that this run was made for: its digest is another than model.digest.",
            "Put the old files back, or start a new run with `aggregator init`.",
        )
    if files != known:
        write_atomically(cache, json.dumps({name: asdict(file) for name, file in files.items()}).encode())
    return files


def _checked(folder: Path) -> CheckedBase:
    """The base in a folder. Raises BaseModelError where a board could not use it, or could not be told of it."""
    try:
        base = check_base(folder)
        _names(folder)
        t5_weights(base.config, "all")
    except BaseFilesError as error:
        raise BaseModelError(str(error), HINT) from error
    except WireError as error:
        raise BaseModelError(f"{folder} cannot be sent to boards: {error}", HINT) from error
    return base


def _names(folder: Path) -> tuple[str, ...]:
    """The base's files, whose names boards can ask for."""
    names = base_file_names(folder)
    if odd := [name for name in names if not PLAIN_FILE_NAME.match(name)]:
        raise BaseFilesError(f"{folder} has a file {odd[0]!r}: rename it with letters, digits, dots and dashes alone")
    if len(names) > MAX_BASE_FILES:
        raise BaseFilesError(
            f"{folder} has {len(names)} files, boards are told of {MAX_BASE_FILES} at most: save the model in larger "
            "shards"
        )
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
