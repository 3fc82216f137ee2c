"""The files of a base model's folder, its config.json, and the digest by which two folders are found to be the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from braid_common.t5_config import T5Config

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_SUFFIX = ".safetensors"

MAX_CONFIG_BYTES = 1 << 20
"""Largest config.json that is read. FLAN-T5's have 1.5 kB."""

_READ_BYTES = 1 << 20  # a board hashes gigabytes with no more memory than this


class BaseFilesError(ValueError):
    """A base model's folder or file that cannot be used. The sentence names it, and says what to do."""


def base_file_names(folder: Path) -> tuple[str, ...]:
    """Names of config.json, tokenizer.json if there is one, and every *.safetensors, sorted.

    Raises BaseFilesError that says what is missing and what to do.
    """
    _require_folder(folder)
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise _unreadable(folder, error) from error
    if CONFIG_FILE not in names:
        raise _without_config(folder)
    if not any(name.endswith(WEIGHTS_SUFFIX) for name in names):
        raise BaseFilesError(
            f"{folder} has no {WEIGHTS_SUFFIX} file: download the model's safetensors weights (.bin files are not read)"
        )
    return tuple(name for name in names if name in (CONFIG_FILE, TOKENIZER_FILE) or name.endswith(WEIGHTS_SUFFIX))


def base_digest(folder: Path) -> str:
    """SHA-256 over the lines "NAME SHA-256-OF-CONTENT" of base_file_names. Reads every byte; raises BaseFilesError."""
    digests = {}
    for name in base_file_names(folder):
        try:
            digests[name] = file_digest(folder / name)
        except OSError as error:
            raise _unreadable(folder / name, error) from error
    return digest_of_files(digests)


def digest_of_files(digests: Mapping[str, str]) -> str:
    """The base's digest, given name → SHA-256 of all its files."""
    lines = [f"{name} {digest}\n" for name, digest in sorted(digests.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file of any size, lower-case hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
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
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError as error:
        raise _without_config(folder) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(text) > MAX_CONFIG_BYTES:
        raise BaseFilesError(f"{path} has more than {MAX_CONFIG_BYTES} bytes: download the model again")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError; thousands of nested brackets
        raise BaseFilesError(f"{path} is not JSON ({error}): download the model again") from error
    if not isinstance(config, dict):
        raise BaseFilesError(f"{path} holds no JSON object: download the model again")
    return config


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise BaseFilesError(
            f"base model folder {folder} does not exist: give a folder that holds {CONFIG_FILE} and weights"
        )


def _without_config(folder: Path) -> BaseFilesError:
    return BaseFilesError(f"{folder} has no {CONFIG_FILE}: download the model again, or give the folder that has it")


def _unreadable(path: Path, error: OSError) -> BaseFilesError:
    return BaseFilesError(f"{path} cannot be read ({error.strerror}): check its permissions and the disk")
