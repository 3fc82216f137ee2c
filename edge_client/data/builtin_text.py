"""The docstrings of what is installed here, for trying things out."""

from __future__ import annotations

from builtin_base import docstrings
from edge_client.data.collection import MAX_EXAMPLES, Collection
from edge_client.errors import DataError

BUILTIN = "builtin:docstrings"


def read_builtin(path: str, collection: Collection) -> None:
    """Take the examples of "builtin:docstrings[/LIBRARY]". Raises DataError where that is none of these."""
    name, _, library = path.partition("/")
    if name != BUILTIN or path == f"{BUILTIN}/":
        raise DataError(f"unknown builtin data {path!r}", f"use {BUILTIN} or {BUILTIN}/LIBRARY")
    libraries = [library] if library else docstrings.installed_libraries()
    seen: set[tuple[str, str]] = set()
    for package in libraries:
        try:
            examples = docstrings.extract(package)
        except LookupError as error:
            if library:
                raise DataError(
                    f"builtin docstrings: {error}", "name an importable library with Python source"
                ) from error
            continue
        for example in examples:
            key = (example.source, example.target)
            if key not in seen and len(collection.examples) < MAX_EXAMPLES:
                seen.add(key)
                collection.add(example)
