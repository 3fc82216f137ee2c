"""The error of every function here that is given a base it cannot use."""

from __future__ import annotations

from braid_common.base.files import BaseFilesError


class BaseFormatError(BaseFilesError):
    """A base folder, file or format that cannot be used. The sentence names the file and tensor, and what to do."""
