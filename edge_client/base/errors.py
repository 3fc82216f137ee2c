"""One way from what is wrong with a base's files to the client's own error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from braid_common.base_files import BaseFilesError
from edge_client.errors import BaseModelError
from wire.errors import WireError


@contextmanager
def base_errors(hint: str = "fetch the base model again, or check its folder") -> Iterator[None]:
    """Raise what speaks against a base as BaseModelError: files that cannot be used, or weights beyond the protocol."""
    try:
        yield
    except (BaseFilesError, WireError) as error:
        raise BaseModelError(str(error), hint) from error
