"""The files of a base model folder that both sides must have alike, and the digest that says whether they do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wire.errors import WireError

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_SUFFIX = ".safetensors"
_READ_BYTES = 1 << 20  # a board hashes gigabytes with no more memory than this


def base_file_names(folder: Path) -> tuple[str, ...]:
    """Names of config.json, tokenizer.json if there is one, and every *.safetensors, sorted.

    Raises WireError that says what is missing and what to do.
    """
    if not folder.is_dir():
        raise WireError(
            f"base model folder {folder} does not exist: give a folder that holds {CONFIG_FILE} and weights"
        )
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise _unreadable(folder, error) from error
    if CONFIG_FILE not in names:
        raise WireError(f"{folder} has no {CONFIG_FILE}: download the model again, or give the folder that has it")
    if not any(name.endswith(WEIGHTS_SUFFIX) for name in names):
        raise WireError(
            f"{folder} has no {WEIGHTS_SUFFIX} file: download the model's safetensors weights (.bin files are not read)"
        )
    return tuple(name for name in names if name in (CONFIG_FILE, TOKENIZER_FILE) or name.endswith(WEIGHTS_SUFFIX))


def base_digest(folder: Path) -> str:
    """SHA-256 over the lines "NAME SHA-256-OF-CONTENT" of base_file_names. Reads every byte once; raises WireError."""
    return digest_of_files({name: file_digest(folder / name) for name in base_file_names(folder)})


def digest_of_files(digests: Mapping[str, str]) -> str:
    """The base's digest, given name → SHA-256 of all its files."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(digests.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size, lower-case hex. Raises WireError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def read_base_config(folder: Path) -> dict[str, Any]:
    """The model's config.json. Raises WireError if the folder is no base model or the file is not a JSON object."""
    base_file_names(folder)
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; thousands of nested brackets
        raise WireError(f"{path} is not JSON ({error}): download the model again") from error
    if not isinstance(config, dict):
        raise WireError(f"{path} holds no JSON object: download the model again")
    return config


def _unreadable(path: Path, error: OSError) -> WireError:
    return WireError(f"{path} cannot be read ({error.strerror}): check its permissions and the disk")
