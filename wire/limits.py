"""Every limit of the protocol, with its reason. They are checked before memory is taken.

Bytes unless the name says otherwise.
"""

from __future__ import annotations

PROTOCOL_VERSION = 1
"""Version of the messages in this package; a peer of another version is refused with a sentence."""

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""One message, adapters included: rank 64 on every FLAN-T5-xl weight is 566 MB in fp32 and 283 MB in bf16."""

MAX_CONTROL_BYTES = 256 * 1024
"""A message without tensors (enrolment, report, task). A report of 64 numbers is 2 kB."""

MAX_STRANGERS_BYTES = 4 * 1024
"""A message of somebody who has no credential yet: an enrolment of the longest names has 2.5 kB."""

MAX_WEIGHTS = 2048
"""Trainable weights of one base. FLAN-T5-xxl has 432."""

MAX_NAME_CHARS = 200
"""A weight's, device's or metric's name. The longest of FLAN-T5 has 44 characters."""

MAX_PREFIX_CHARS = 1000
"""The words before every source. A paragraph of so many is some 250 tokens, half of what T5 was trained to read."""

MAX_TEXT_TOKENS = 8192
"""Longest source or target of a run. Attention over a source of this length takes 256 MiB for each head in fp32."""

MIN_SOURCE_TOKENS = 8
"""Shortest source that a run may allow: a prefix and a few words."""

MIN_TARGET_TOKENS = 2
"""Shortest target that a run may allow: a token and its eos."""

MAX_TEXT_CHARS = 2000
"""A sentence meant for a person (error, hint, reason)."""

MAX_RANK = 256
"""Strands of one weight; also rows of a gradient sketch. LoRA papers stop at 200."""

MAX_SIDE = 1 << 17
"""Rows or columns of one weight. The largest of FLAN-T5-xxl's trained ones is 10,240."""

MAX_TENSOR_VALUES = 1 << 25
"""Values in one tensor: rank 256 on 131,072 rows."""

MAX_METRICS = 64
"""Numbers in one report."""

MAX_EXAMPLES = 1_000_000
"""Example count that one board may claim for one round; more is refused, for a liar would own the mean."""

MAX_BASE_FILES = 256
"""Files of one base. The weights of FLAN-T5-xxl lie in 5."""

MAX_HISTORY = 1024
"""Versions in one answer to GET /v1/versions: 100 kB. A board that was away for longer asks again."""

MAX_ROUNDS = 100_000
"""Rounds of one run."""

VERSION_DIGEST_CHARS = 16
"""What is sent of a version's digest: 64 bits tell apart all versions of one number that a server ever makes."""

MAX_EPOCH_CHARS = 32
"""The name of one start of a server. It stands in addresses."""

MAX_DEPTH = 8
"""Nesting of arrays and maps in one message. The deepest legal one, an adapter's patch, has 6."""

MAX_ARRAY_ITEMS = MAX_WEIGHTS
"""Items of one array. The longest lists are those with an entry per weight."""

MAX_MAP_ENTRIES = MAX_METRICS
"""Entries of one map. The largest is a report's; the largest struct has 15 fields."""

MAX_ITEMS = 1 << 20
"""Scalars, strings, arrays and maps in one message: twice what σ² of MAX_RANK strands of MAX_WEIGHTS weights takes."""

MAX_TEXT_BYTES = 4 * MAX_TEXT_CHARS
"""One string in UTF-8."""

MAX_TENSOR_BYTES = 4 * MAX_TENSOR_VALUES
"""The data of one tensor, in fp32."""

MAX_ERROR_CHARS = 500
"""Text of a WireError about a message. It may quote the peer, and goes into a Refusal and a log line."""

QUANTISATION_BLOCK = 64
"""Consecutive values (row-major) that share one fp32 scale in int8 and int4 tensors."""

MAX_LONG_POLL_S = 60.0
"""Longest wait in `GET /v1/work`: proxies commonly drop silent connections after 60 to 120 s."""
