"""Ranges of bytes that a request asks for: Range, If-Range and If-None-Match of HTTP, for one range."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from aggregator.errors import CallError

_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Range:
    """`length` bytes from `start`; `status` 200 for the whole, 206 for a part, 304 for nothing new."""

    status: int
    start: int
    length: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int, etag: str) -> Range:
        """Read a request's headers. Forms that we do not serve give the whole file, as HTTP allows.

        Raises CallError (416) for a range that begins behind the end.
        """
        if etag in [tag.strip().removeprefix("W/") for tag in headers.get("If-None-Match", "").split(",")]:
            return cls(304, 0, 0)
        match = _RANGE.match(headers.get("Range", ""))
        if match is None or headers.get("If-Range", etag) != etag:
            return cls(200, 0, size)
        start, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if start >= size or last < start:
            raise CallError(
                "bad_request",
                f"the file has {size} bytes, none in the range asked for",
                headers={"Content-Range": f"bytes */{size}", "ETag": etag},
                status=416,
            )
        return cls(206, start, last - start + 1, {"Content-Range": f"bytes {start}-{last}/{size}"})
