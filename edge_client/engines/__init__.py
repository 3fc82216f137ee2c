"""Training engines: each carries out a board's jobs in its own way, and is found here by its name.

An engine is a module with a function `open_engine(host)` that returns an `edge_client.engines.contract.Engine`. It is
imported when the first job names it, so that a board loads the libraries of no other. To add one, give it a folder
beside `lean/` and a line in ENGINES.
"""

from __future__ import annotations

import importlib

from edge_client.engines.contract import Engine, Host
from edge_client.errors import ConfigError

ENGINES = {
    "lean": "edge_client.engines.lean.engine",
}
"""Modules by the engine's name: `lean` is our own T5 in plain torch, made for little memory."""


def open_engine(name: str, host: Host) -> Engine:
    """The engine of that name, with nothing loaded yet. Raises ConfigError where there is none of that name."""
    if name not in ENGINES:
        raise ConfigError(
            f"there is no training engine {name!r}", f"this edge-client has: {', '.join(sorted(ENGINES))}"
        )
    engine: Engine = importlib.import_module(ENGINES[name]).open_engine(host)
    return engine
