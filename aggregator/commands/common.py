"""Parts of several commands: their arguments, the folder's store, and what they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Facts as JSON.")


def show(facts: Any, as_json: bool, text: str) -> None:
    """Print the facts for a program, or the text for a person."""
    click.echo(json.dumps(facts, indent=2) if as_json else text)


def folder_of(path: Path) -> Any:
    """The server's folder at a path."""
    from aggregator.store.folder import Folder

    return Folder(path)


def with_store(path: Path, use: Callable[[Any], Any]) -> Any:
    """The result of `use`, which is given the folder's store."""
    from aggregator.run.setup import open_store

    store = open_store(folder_of(path))
    try:
        return use(store)
    finally:
        store.close()
