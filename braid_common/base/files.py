"""The files of a base model's folder, its config.json, and the digest by which two folders are found to be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from braid_common.base.t5_config import T5Config

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_SUFFIX = ".safetensors"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
"""Says which file holds each tensor, where the weights lie in several."""

MAX_CONFIG_BYTES = 1 << 20
"""Largest config.json that is read. FLAN-T5's have 1.5 kB."""

MAX_INDEX_BYTES = 16 << 20
"""Largest index that is read. FLAN-T5-xxl's has 60 kB."""

_READ_BYTES = 1 << 20  # a board hashes gigabytes with no more memory than this

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ADAPTER_FILE = "adapter_config.json"
_PICKLES = "*.bin"

TO_SAFETENSORS = (
    'python -c "import glob, torch; from safetensors.torch import save_file; save_file({{n: t.clone() for p in '
    "glob.glob('{0}/pytorch_model*.bin') for n, t in torch.load(p, weights_only=True).items()}}, "
    "'{0}/model.safetensors', metadata={{'format': 'pt'}})\""
)
"""What makes safetensors of pickled weights, wherever torch is installed. Every tensor is kept as it is: transformers 5
would write a config.json that says of every T5 that its output layer is the embedding."""


class BaseFilesError(ValueError):
    """A base model's folder or file that cannot be used. The sentence names it, and says what to do."""


class _Index(msgspec.Struct):
    """The part of a checkpoint's index that is read: the file of each tensor."""

    weight_map: dict[str, str]


def base_file_names(folder: Path) -> tuple[str, ...]:
    """Names of config.json, tokenizer.json if there is one, and the weights: one file, or an index and its shards.
    Sorted; what else lies in the folder is no part of the base.

    Raises BaseFilesError that says what is missing and what to do.
    """
    names = _names(folder)
    weights = weight_file_names(folder)
    index = (INDEX_FILE,) if WEIGHTS_FILE not in weights else ()
    tokenizer = (TOKENIZER_FILE,) if TOKENIZER_FILE in names else ()
    return tuple(sorted((CONFIG_FILE, *tokenizer, *index, *weights)))


def is_base_file(name: str) -> bool:
    """Whether a file of this name can be a part of a base."""
    return name in (CONFIG_FILE, TOKENIZER_FILE, INDEX_FILE) or name.endswith(WEIGHTS_SUFFIX)


def weight_file_names(folder: Path) -> tuple[str, ...]:
    """Names of the files that hold the weights, sorted: model.safetensors, else the shards that the index names.

    Raises BaseFilesError where there are none, where the index is damaged, or where a shard of it is missing.
    """
    names = _names(folder)
    if WEIGHTS_FILE in names:
        return (WEIGHTS_FILE,)
    if INDEX_FILE not in names:
        raise _without_weights(folder, names)
    shards = shard_names(folder)
    if missing := [name for name in shards if name not in names]:
        raise BaseFilesError(
            f"{folder} has no {missing[0]}, which {INDEX_FILE} names ({len(missing)} of {len(shards)} files are "
            "missing): download the model again"
        )
    return shards


def _names(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that has a config.json."""
    _require_folder(folder)
    try:
        names = frozenset(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise unreadable(folder, error) from error
    if CONFIG_FILE not in names:
        raise _without_config(folder)
    return names


def shard_names(folder: Path) -> tuple[str, ...]:
    """Names of the files that the folder's index names, sorted, whether they are there or not.

    Raises BaseFilesError where the index is damaged.
    """
    path = folder / INDEX_FILE
    text = read_small(path, MAX_INDEX_BYTES)
    try:
        shards = sorted(set(msgspec.json.decode(text, type=_Index).weight_map.values()))
    except (ValueError, RecursionError) as error:  # msgspec's errors, and UnicodeDecodeError
        raise BaseFilesError(f"{path} is damaged ({error}): download the model again") from error
    odd = [name for name in shards if Path(name).name != name or not name.endswith(WEIGHTS_SUFFIX)]
    if odd or not shards:
        what = f"names {odd[0][:80]!r}, which is no plain {WEIGHTS_SUFFIX} file" if odd else "names no file"
        raise BaseFilesError(f"{path} is damaged (it {what}): download the model again")
    return tuple(shards)


def base_digest(folder: Path, read: Callable[[int], object] = lambda n_bytes: None) -> str:
    """SHA-256 over the lines "NAME SHA-256-OF-CONTENT" of base_file_names. `read` hears how many bytes were read.

    Reads every byte; raises BaseFilesError.
    """
    digests = {}
    for name in base_file_names(folder):
        try:
            digests[name] = file_digest(folder / name, read)
        except OSError as error:
            raise unreadable(folder / name, error) from error
    return digest_of_files(digests)


def digest_of_files(digests: Mapping[str, str]) -> str:
    """The base's digest, given name → SHA-256 of all its files."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(digests.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path, read: Callable[[int], object] = lambda n_bytes: None) -> str:
    """SHA-256 of a file of any size, lower-case hex. `read` hears how many bytes were read. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
            read(len(chunk))
    return digest.hexdigest()


def read_t5_config(folder: Path) -> T5Config:
    """The numbers of the folder's config.json. Raises BaseFilesError where it is missing, damaged or no gated T5's."""
    return parse_t5_config(folder, read_config_json(folder))


def parse_t5_config(folder: Path, config: Mapping[str, Any]) -> T5Config:
    """The numbers of the object that the folder's config.json holds. Raises BaseFilesError that names the file."""
    try:
        return T5Config.parse(config)
    except ValueError as error:
        raise BaseFilesError(f"{folder / CONFIG_FILE} is not a FLAN-T5's: {error}") from error


def read_config_json(folder: Path) -> dict[str, Any]:
    """The object in the folder's config.json, its values unchecked. Raises BaseFilesError."""
    _require_folder(folder)
    path = folder / CONFIG_FILE
    if not path.exists():
        raise _without_config(folder)
    text = read_small(path, MAX_CONFIG_BYTES)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; thousands of nested brackets
        raise BaseFilesError(f"{path} is not JSON ({error}): download the model again") from error
    if not isinstance(config, dict):
        raise BaseFilesError(f"{path} holds no JSON object: download the model again")
    return config


def read_small(path: Path, most_bytes: int) -> bytes:
    """The whole of a file that is there. Raises BaseFilesError for one that is larger, or that Git LFS stands for."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > most_bytes:
        raise BaseFilesError(f"{path} has more than {most_bytes} bytes: download the model again")
    require_content(path, content)
    return content


def require_content(path: Path, head: bytes) -> None:
    """Raise BaseFilesError where a file begins as Git LFS's pointers do, in place of its content."""
    if head.startswith(_LFS_POINTER):
        raise BaseFilesError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs install` and `git lfs pull` in "
            f"{path.parent}, or download the model another way"
        )


def unreadable(path: Path, error: OSError) -> BaseFilesError:
    """The error for a file or folder that the operating system does not give."""
    return BaseFilesError(f"{path} cannot be read ({error.strerror}): check its permissions and the disk")


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BaseFilesError(
            f"base model folder {folder} does not exist: give a folder that holds {CONFIG_FILE} and weights"
        )


def _without_config(folder: Path) -> BaseFilesError:
    if (folder / _ADAPTER_FILE).exists():
        return BaseFilesError(f"{folder} is an adapter and no base: give the folder of the model that it was made for")
    return BaseFilesError(f"{folder} has no {CONFIG_FILE}: download the model again, or give the folder that has it")


def _without_weights(folder: Path, names: frozenset[str]) -> BaseFilesError:
    if any(name.endswith(WEIGHTS_SUFFIX) for name in names):
        return BaseFilesError(f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}: download the model again")
    if pickled := sorted(path.name for path in folder.glob(_PICKLES)):
        return BaseFilesError(
            f"{folder} has no {WEIGHTS_SUFFIX} file, and {pickled[0]} is a pickle, which is never read: download the "
            f"model's safetensors weights, or make them: {TO_SAFETENSORS.format(folder)}"
        )
    return BaseFilesError(
        f"{folder} has no {WEIGHTS_SUFFIX} file: download the model's safetensors weights (.bin files are not read)"
    )
