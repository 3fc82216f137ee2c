"""The settings of `edge-client join`, from flags, environment and a TOML file, in this order of strength."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edge_client.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TYPES: dict[str, type] = {
    "server": str,
    "token": str,
    "fingerprint": str,
    "data": str,
    "model": str,
    "memory": str,
    "cache": str,
    "round_time": str,
    "round_traffic": str,
    "state": str,
    "name": str,
    "wait": bool,
    "threads": int,
    "eval_examples": int,
    "json": bool,
    "debug": bool,
}


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How a board joins. "" and None mean: not given."""

    server: str
    token: str
    fingerprint: str
    data: str
    model: str
    memory: str
    state: Path
    name: str
    wait: bool
    threads: int
    eval_examples: int = 200
    cache: str = ""
    round_time: str = ""
    round_traffic: str = ""


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises ConfigError that names the file, and the key where one is wrong."""
    try:
        settings: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check --config and the file's rights") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", "mend that line") from error
    for key, value in settings.items():
        kind = _TYPES.get(key)
        if kind is None:
            raise ConfigError(f"{path}: there is no setting {key!r}", f"the settings are {', '.join(sorted(_TYPES))}")
        if type(value) is not kind:
            raise ConfigError(f"{path}: {key} = {value!r} must be of type {kind.__name__}", "mend that line")
    return settings


def normalise_server(url: str) -> str:
    """`url` without a slash at its end. Raises ConfigError unless it is http(s)://HOST[:PORT][/PATH]."""
    if not url:
        raise ConfigError("no server is given", "pass --server URL as `aggregator serve` printed it")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"--server {url!r} is not an address: {error}", "write https://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--server {url!r} is not an address of an aggregator", "write https://HOST:PORT")
    return url.rstrip("/")
