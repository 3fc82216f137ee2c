"""Uploads as the server judges them: bytes become a contribution to the open round, or a refusal with its reason.

An input's first line is `profile` or `update`, the rest is the upload.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.merge.contribution import SentVersion, profile_contribution
from aggregator.merge.rules import RULES, folded
from aggregator.merge.state import AdapterState, initial_state
from aggregator.merge.step import MergeSettings
from aggregator.run.admit import judge
from aggregator.run.open_round import OpenRound
from aggregator.run.screen import Kind, Size
from aggregator.settings.terms import Terms
from fuzz.contract import Judge, Target, require
from fuzz.mutations import behind_first_line, mutate_msgpack
from fuzz.targets.small_run import RUN, RUN_ID, SPEC, WEIGHTS
from wire.checks import basis_rank
from wire.errors import WireError
from wire.limits import MAX_EXAMPLES
from wire.messages import NamedTensor, Profile, RoundSpec
from wire.tensors import pack

KINDS = (b"update", b"profile")

PROFILING = OpenRound(spec=RoundSpec(round=0, version=0, seed=7, sketch=True), quorum=2, since_s=0.0)

TRAINING = OpenRound(spec=SPEC, quorum=2, since_s=0.0)

RULE = RULES["weave"]

TERMS = Terms(
    run_id=RUN_ID,
    weights=WEIGHTS,
    manifest=RUN.manifest,
    max_rank=RUN.max_rank,
    server_rank=RUN.server_rank,
    importance="sketch",
    rule=RULE,
    farthest=100.0,
)

MERGING = MergeSettings(server_rank=RUN.server_rank, max_rank=RUN.max_rank)


@dataclass(frozen=True, slots=True)
class _Server:
    """The two versions against which uploads are judged: the bare base, and the first with a basis."""

    bare: AdapterState
    trained_on: AdapterState

    def check(self, data: bytes) -> str:
        """Judge an upload; what is accepted is merged as well."""
        kind, _, body = data.partition(b"\n")
        is_profile = kind == b"profile"
        into, state = (PROFILING, self.bare) if is_profile else (TRAINING, self.trained_on)
        try:
            verdict = judge(body, TERMS, into.spec, SentVersion(RULE, state, TERMS.download), into)
        except WireError as error:
            require(str(error), "a refusal is a sentence")
            return "no message"
        require(1 <= verdict.n_examples <= MAX_EXAMPLES, "a board counts within bounds")
        if verdict.contribution is None:
            require(verdict.reason, "a refusal has its reason")
            return "refused"
        _require_finite(verdict.sizes)
        total = folded(RULE, [verdict.contribution])
        if is_profile:
            RULE.first_basis(state, total, max_rank=TERMS.max_rank, seed=1)
            return "accepted"
        try:
            after = RULE.merge(state, total, MERGING)
        except (ValueError, np.linalg.LinAlgError, WireError):  # which abandons the round
            return "accepted, not merged"
        require(after.version == state.version + 1, "a merge makes the next version")
        return "accepted"


def _require_finite(sizes: Mapping[Kind, Size]) -> None:
    require(
        all(np.isfinite(size.whole) and np.isfinite(size.peak) for size in sizes.values()),
        "what is accepted has a size",
    )


def _first_version() -> AdapterState:
    rng = np.random.default_rng(1)
    sketches = tuple(
        NamedTensor(
            name=weight.name,
            tensor=pack(rng.standard_normal((basis_rank(weight, RUN.max_rank), weight.columns)), "fp32"),
        )
        for weight in WEIGHTS
    )
    profile = Profile(protocol=1, run_id=RUN_ID, manifest=RUN.manifest, n_examples=3, sketches=sketches)
    total = folded(RULE, [profile_contribution(profile)])
    return RULE.first_basis(initial_state(WEIGHTS), total, max_rank=RUN.max_rank, seed=1)


@contextmanager
def _open(_: Path) -> Iterator[Judge]:
    yield Judge(_Server(initial_state(WEIGHTS), _first_version()).check)


UPLOADS = Target(
    name="uploads",
    about="uploads as the server judges and merges them",
    max_bytes=4096,
    open=_open,
    mutate=behind_first_line(mutate_msgpack, KINDS),
)
