"""The settings of `edge-client join`, from flags, environment and a TOML file, in this order of strength."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import urlsplit

import msgspec

from edge_client.errors import ConfigError
from edge_client.host.priority import NICE
from edge_client.jobs.data_spec import DataSpec
from edge_client.jobs.reward_spec import Reward, read_rewards
from wire.run import Personal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """How a board joins: a field for each flag of `edge-client join` and each key of its file. "" means: not given.

    `personal` and `rewards`, tables of the file, have no flags: the local strands that this board asks for itself, and
    what its owner wants of answers.
    """

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
    source: str = ""
    target: tuple[str, ...] = ()
    encoding: str = ""
    delimiter: str = ""
    window: str = ""
    below: str = ""
    only_on_mains: bool = False
    nice: int = NICE
    personal: Personal | None = None
    rewards: tuple[Reward, ...] = ()

    @property
    def data_spec(self) -> DataSpec:
        """The data set to train on."""
        return DataSpec.of(
            self.data, source=self.source, targets=self.target, encoding=self.encoding, delimiter=self.delimiter
        )


_FIELDS: dict[str, type] = get_type_hints(JoinSettings)

TARGET = "target"
"""The one setting that may be a text or a list of texts."""

PERSONAL = "personal"
"""The one setting that is a table."""

REWARD = "reward"
"""The name of the file's tables, each of which is one reward."""

FILE_TYPES = {key: kind if kind in (bool, int) else str for key, kind in _FIELDS.items() if key != "rewards"} | {
    PERSONAL: dict,
    "json": bool,
    "debug": bool,
}
"""Types of the file's values by key: those of JoinSettings, and two that say how the command itself talks."""


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises ConfigError that names the file, and the key where one is wrong."""
    try:
        settings: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", "check --config and the file's rights") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", "mend that line") from error
    rewards = read_rewards(settings.pop(REWARD, []), path)
    for key, value in settings.items():
        kind = FILE_TYPES.get(key)
        if kind is None:
            raise ConfigError(
                f"{path}: there is no setting {key!r}", f"the settings are {', '.join(sorted([*FILE_TYPES, REWARD]))}"
            )
        if key == TARGET:
            settings[key] = _targets(path, value)
        elif key == PERSONAL:
            settings[key] = _personal(path, value)
        elif type(value) is not kind:
            raise ConfigError(f"{path}: {key} = {value!r} must be of type {kind.__name__}", "mend that line")
    return settings | ({"rewards": rewards} if rewards else {})


def _targets(path: Path, value: object) -> list[str]:
    """The columns of `target`: one, or a list of several."""
    targets = [value] if isinstance(value, str) else value
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise ConfigError(
            f"{path}: {TARGET} = {value!r} must be a column or a list of columns", 'write it as in target = "summary"'
        )
    return targets


def _personal(path: Path, value: object) -> Personal:
    """The local strands that a board asks for itself. Raises ConfigError that names the key."""
    try:
        personal = msgspec.convert(value, Personal)
        if personal.method == "fedrep" and personal.rank and not personal.local_blocks:
            raise msgspec.ValidationError("method = fedrep needs local_blocks of 1 or more")
        return personal
    except msgspec.ValidationError as error:
        keys = ", ".join(Personal.__struct_fields__)
        raise ConfigError(f"{path}: [{PERSONAL}]: {error}", f"its settings are {keys}; rank = 0 is none") from error


def normalise_server(url: str) -> str:
    """`url` in one spelling, without a slash at its end. Raises ConfigError unless it is http(s)://HOST[:PORT][/PATH]."""
    if not url:
        raise ConfigError("no server is given", "pass --server URL as `aggregator serve` printed it")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"--server {url!r} is not an address: {error}", "write https://HOST:PORT") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError(f"--server {url!r} is not an address of an aggregator", "write https://HOST:PORT")
    host, percent, zone = parts.hostname.partition("%")
    if percent:  # RFC 6874 writes %25eth0 in a URL, and everybody types %eth0
        host = f"{host}%{zone.removeprefix('25')}"
    host = f"[{host}]" if ":" in host else host
    port = "" if parts.port is None else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path}".rstrip("/")
