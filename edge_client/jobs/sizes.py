"""Sizes that the planner counts with and the engine works by. Loads no tensor library.

Each number stands here once: a planner that believed another one than the engine keeps would promise a peak of memory
that training exceeds.
"""

from __future__ import annotations

import platform

from braid_common.base.t5_config import T5Config
from edge_client.jobs.messages import CacheDtype
from wire.run import Personal, RunInfo, When

IMPORTS_BYTES_ON = {"x86_64": 243 << 20, "aarch64": 250 << 20}
"""Resident memory of a worker that has imported torch and the engine and read tokenizer and data, before any model, by
architecture. Measured with Python 3.11 and builds for processors: x86-64 239 to 244 MiB (torch 2.13); aarch64 250 MiB
(torch 2.9.1) and 270 (2.10), emulated, QEMU's own taken out (docs/results/arm.md). Of two builds the smaller counts:
what a board's takes more, its probe finds; what it takes less, nothing would."""


def imports_bytes(machine: str) -> int:
    """The row of an architecture, as `platform.machine()` names it; the largest for one that nobody has measured."""
    return IMPORTS_BYTES_ON.get(machine, max(IMPORTS_BYTES_ON.values()))


IMPORTS_BYTES = imports_bytes(platform.machine())
"""That of this machine."""

CUDA_CONTEXT_BYTES = 400 << 20
"""Driver, kernels and cuBLAS workspace of a process that uses CUDA. Not measured here: "around 400MB" where modules are
loaded as they are needed, the default since CUDA 11.7 (github.com/pytorch/pytorch/issues/109888). On a Jetson it comes
out of the same memory as everything else."""

# --- a training step -----------------------------------------------------------------------------------------------

VOCABULARY_ROWS = 4096
"""Rows of the head that are unpacked at once: 4 MiB in bf16 for FLAN-T5-small, and few enough products to be lean."""

LOGITS_BYTES = 4 << 20
"""fp32 logits alive at once, of one chunk of the vocabulary and as many tokens as that allows (256)."""

SCORES_BYTES = 8 << 20
"""Attention scores alive at once: of as many examples as this holds, and of one at least."""

LENGTH_STEP = 32
"""Sources are padded to a multiple of this, targets to a quarter of it. oneDNN keeps a kernel with its buffers for
every shape it has met: with a shape of its own for every batch a worker grew by 16 MB a step."""

RANK_STEP = 8
"""Ranks are computed at multiples of this, with rows of zeros: boards choose strands by value, so that every weight has
a rank of its own, and a kernel would have to be compiled, kept or made again for each."""

ADALORA_RANK = 4
"""Triplets of every weight while a profile scores the weights as AdaLoRA does: their random directions sample the
gradient, and each costs memory. How well the order of the weights agrees with the sketches' (Spearman): 2 triplets
0.65, 4 0.79, 8 and 12 0.80 (builtin base, MTS-Dialog)."""


def ranks_of_own(run: RunInfo, when: When, *, trains_encoder: bool) -> tuple[int, ...]:
    """Local strands of each weight, where they are trained then; none of an encoder that is not trained."""
    personal = run.settings.personal
    if not isinstance(personal, Personal):
        return (0,) * len(run.weights)
    has_some = personal.has_steps_of_own if when == "after" else personal.is_beside
    if not has_some:
        return (0,) * len(run.weights)
    pairs = zip(run.weights, run.local_ranks, strict=True)
    return tuple(0 if weight.is_encoder and not trains_encoder else rank for weight, rank in pairs)


ANSWERS_BYTES = 32 << 20
"""What is held of answers that are written side by side, of one at least: keys and values of source and answer in every
block, and a row of logits. Every token of an answer is a pass over the decoder, so that writing one by one takes as
many times as long as there are answers."""


def answer_bytes(base: T5Config, source_tokens: int, target_tokens: int, value_bytes: int) -> int:
    """Bytes of one answer while it is written, in a compute dtype of `value_bytes` a value: keys and values; the
    encoder's output; logits in that dtype, in fp32, as probabilities, and these once more where they are drawn from."""
    tokens = source_tokens + target_tokens
    keys_and_values = 2 * base.n_decoder_blocks * tokens * base.inner * value_bytes
    return keys_and_values + source_tokens * base.d_model * value_bytes + base.vocab_size * (value_bytes + 3 * 4)


def answers_at_once(base: T5Config, source_tokens: int, target_tokens: int, value_bytes: int) -> int:
    """How many answers are written side by side."""
    return max(1, ANSWERS_BYTES // answer_bytes(base, source_tokens, target_tokens, value_bytes))


# --- the encoding pass and its cache -------------------------------------------------------------------------------

TOKENS_PER_BATCH = 1024
"""Tokens that the encoding pass runs through a block together, padding included, of one source at least. On one core in
bf16 the small shape encodes sources of 512 tokens 16 % faster than with 512; 2048 is no faster and takes up to 70 MB
more where there is padding."""

LEAST_HIDDEN_BYTES = 8 << 20
"""Hidden states that the encoding pass takes through a block before it loads the next, where the plan leaves little. A
few thousand tokens: enough that a block is read for many."""

HEADER_BYTES = 64
"""Of a cache entry, before its payload, which is aligned by it: the encoder_cache's format and its checksum."""


def entry_bytes(n_tokens: int, d_model: int, dtype: CacheDtype) -> int:
    """Size on disk of one text's encoder output: a header, and per token d_model values, in int8 with one fp32
    scale."""
    return HEADER_BYTES + n_tokens * (2 * d_model if dtype == "bf16" else d_model + 4)
