"""The packages that training needs, looked up without importing any."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from edge_client.errors import ConfigError

NEEDED = {
    "torch": "training; after apt sudo edge-client-setup, else install braid-fl[client] or the board maker's own build",
    "safetensors": "reading the base; install braid-fl[client]",
    "tokenizers": "text to tokens; install braid-fl[client]",
    "rouge-score": "ROUGE at the end of a run; install braid-fl[client]",
}
OPTIONAL = ("huggingface-hub",)


def versions() -> dict[str, str | None]:
    """Version by distribution, None where it is not installed."""
    return {name: _version(name) for name in (*NEEDED, *OPTIONAL)}


def require_packages(names: Iterable[str] = tuple(NEEDED)) -> None:
    """Raise ConfigError that names what is missing for training, or of `names`, and how to get it."""
    missing = [name for name in names if _version(name) is None]
    if missing:
        raise ConfigError(f"not installed: {', '.join(missing)}", f"{missing[0]} is for {NEEDED[missing[0]]}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
