"""Local strands on top of a global adapter, as one set of factors to compute with."""

from __future__ import annotations

from collections.abc import Mapping

from edge_client.engines.lean.model.lora import Factors
from edge_client.engines.lean.personal.local_strands import OwnStrands, read_own
from edge_client.errors import ConfigError
from edge_client.state.personal_folder import StrandsFile


def on_top(of: Mapping[str, Factors], file: StrandsFile) -> dict[str, Factors]:
    """The factors of a global adapter and of the strands in a file together, by weight. Raises ConfigError as
    `sound_strands`."""
    return sound_strands(file).over(of)


def sound_strands(file: StrandsFile) -> OwnStrands:
    """The strands in a file. Raises ConfigError where it is damaged, or is not what it was said to be."""
    own = read_own(file.path, file.key)
    if own is None:
        raise ConfigError(
            f"the local strands in {file.path} are damaged, or were trained for something else",
            "leave them out with --global; `edge-client personal forget` removes them, and the next round begins anew",
        )
    return own
