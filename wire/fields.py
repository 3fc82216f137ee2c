"""Types of the fields that messages are made of: names, counts and numbers with their bounds, and the struct below all.

No tensor library is loaded here.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from wire.limits import (
    MAX_EXAMPLES,
    MAX_NAME_CHARS,
    MAX_PREFIX_CHARS,
    MAX_RANK,
    MAX_ROUNDS,
    MAX_SIDE,
    MAX_TEXT_CHARS,
    MAX_TEXT_TOKENS,
    VERSION_DIGEST_CHARS,
)

# Names go into headers, logs, terminals and the manifest's lines: no control characters (C0, DEL, C1).
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f-\x9f]+\Z")]
# The words before every source. Line breaks and tabs may be part of a prompt, other control characters never are.
Prefix = Annotated[str, Meta(max_length=MAX_PREFIX_CHARS, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*\Z")]
PLAIN_FILE_NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]*\Z")  # no path, and nothing that a URL would quote
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARS)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]  # SHA-256, lower-case hex
ChainValue = Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]  # a digest, or "" for none
# The beginning of the SHA-256 of a version as its server stores it; "" where nothing is stored
VersionDigest = Annotated[str, Meta(pattern=rf"^([0-9a-f]{{{VERSION_DIGEST_CHARS}}})?\Z")]
Commit = Annotated[str, Meta(pattern=r"^([0-9a-f]{40})?\Z")]  # a commit on the hub; "" for what is not from there
Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Rank = Annotated[int, Meta(ge=0, le=MAX_RANK)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
RoundId = Annotated[int, Meta(ge=0, le=MAX_ROUNDS)]
Tokens = Annotated[int, Meta(ge=0, le=MAX_TEXT_TOKENS)]
ExampleCount = Annotated[int, Meta(ge=1, le=MAX_EXAMPLES)]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]  # NaN fails both bounds
Positive = Annotated[float, Meta(gt=0, le=1e300)]
NonNegative = Annotated[float, Meta(ge=0, le=1e300)]
Dtype = Literal["fp32", "bf16", "int8", "int4"]


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every struct on the wire: unknown keys are an error, never skipped."""
