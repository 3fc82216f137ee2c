"""Trouble with the disk: what the run could not write, and when it tries again. The server stays up meanwhile."""

from __future__ import annotations

import errno

from aggregator.errors import DiskError

FIRST_PAUSE_S = 1.0
"""Between the first two tries: a database that another program has locked is mostly free again by then."""

LONGEST_PAUSE_S = 30.0
"""Between later tries: somebody has to make room, and a merge may be made again for each."""

_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk's quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error",
}


class Trouble:
    """Whether the run waits for its disk. `text`: the sentence for people; "" while all is well."""

    def __init__(self) -> None:
        self.text = ""
        self._pause_s = FIRST_PAUSE_S

    def begin(self, error: DiskError | OSError) -> tuple[bool, float]:
        """Something could not be written: whether that is news, and how many seconds to wait."""
        text = f"the run waits for its disk and goes on by itself: {words_of(error)}"
        is_news, self.text = text != self.text, text
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        return is_news, pause_s

    def end(self) -> bool:
        """All was written; whether it had not been before."""
        was_there, self.text, self._pause_s = bool(self.text), "", FIRST_PAUSE_S
        return was_there


def words_of(error: DiskError | OSError) -> str:
    """The disk's trouble in words."""
    if isinstance(error, OSError):
        return _WORDS.get(error.errno or 0, str(error))
    return error.message


def is_full(error: BaseException) -> bool:
    """Whether there is no room left, in the file system or for the database in it."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskError) and "full" in error.message
