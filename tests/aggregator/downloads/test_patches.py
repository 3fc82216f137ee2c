"""PatchMaker between adapters: what a board makes of one is what the server would have sent it whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.downloads import patches
from aggregator.downloads.patches import TOLERANCE, PatchMaker
from aggregator.merge.bases import random_basis
from aggregator.merge.low_rank.matrix_sum import Product
from aggregator.merge.rules import RULES
from aggregator.merge.slices import cut_basis
from aggregator.merge.state import AdapterState, WeightState, initial_state
from aggregator.merge.step import MergeSettings, stepped
from edge_client.engines.adapter_patch import make_whole
from edge_client.state.held_adapter import FULL_EVERY
from tests.fakes.runs import TINY_T5, run_of
from wire.codec import decode, encode
from wire.fields import Dtype
from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, AdapterPatch, Tensor
from wire.run import RunInfo, Weight
from wire.tensors import unpack

BOUND = 2.0**-6
"""How far a context may be from the server's after FULL_EVERY differences, in its norm."""

MAX_RANK, SERVER_RANK = 4, 8
WEIGHTS = tuple(
    Weight(name=name, rows=rows, columns=columns)
    for name, (rows, columns) in {"decoder.q": (96, 160), "decoder.wi": (200, 64), "decoder.o": (64, 6)}.items()
)


def make_run(upload: Dtype = "bf16") -> RunInfo:
    """A run on WEIGHTS."""
    base = run_of(TINY_T5, {"upload": upload}, max_rank=MAX_RANK, server_rank=SERVER_RANK)
    return msgspec.structs.replace(base, weights=WEIGHTS, manifest=manifest_digest(WEIGHTS))


def first_state() -> AdapterState:
    return random_basis(initial_state(WEIGHTS), max_rank=MAX_RANK, seed=3)


def next_state(state: AdapterState, rng: np.random.Generator, trained: Sequence[bool], new_basis: bool) -> AdapterState:
    """A round: boards trained the leading strands of some weights, by more or less, and perhaps sketched."""
    made = MergeSettings(server_rank=SERVER_RANK, max_rank=MAX_RANK)
    fresh = random_basis(initial_state(WEIGHTS), max_rank=MAX_RANK, seed=int(rng.integers(1 << 30)))

    def step(weight: WeightState, name: str, is_trained: bool) -> WeightState:
        scales = 10.0 ** rng.uniform(-3, 0, len(weight.basis))
        b = rng.standard_normal((weight.shape[0], len(weight.basis))) * scales
        after = stepped(weight, (Product(1.0, b, weight.basis),), made) if is_trained else weight
        return replace(after, basis=fresh.weights[name].basis) if new_basis else after

    pairs = zip(state.weights.items(), trained, strict=True)
    return AdapterState(
        state.version + 1, {name: step(weight, name, is_trained) for (name, weight), is_trained in pairs}
    )


def adapter(state: AdapterState, parts: tuple[AdapterPart, ...]) -> Adapter:
    run = make_run()
    return Adapter(protocol=1, run_id=run.run_id, version=state.version, manifest=run.manifest, parts=parts)


def fetched(
    held: Adapter,
    before: AdapterState,
    after: AdapterState,
    ranks: Sequence[int],
    *,
    had: Sequence[int],
    cut: Callable[..., tuple[AdapterPart, ...]] = cut_basis,
    dtype: Dtype = "bf16",
) -> tuple[Adapter, int]:
    """What a board that holds `held` makes of the difference, through files as in production; and the bytes sent."""
    sent = adapter(after, cut(after, ranks, dtype))
    parts = PatchMaker().parts(cut(before, had, dtype), sent.parts, cut(after, ranks, "fp32"))
    assert parts is not None
    difference = AdapterPatch(
        since=before.version,
        protocol=1,
        run_id=sent.run_id,
        version=sent.version,
        manifest=sent.manifest,
        parts=parts,
    )
    with tempfile.TemporaryDirectory() as folder:
        path, kept = Path(folder, "new"), Path(folder, "held")
        path.write_bytes(encode(difference))
        kept.write_bytes(encode(held))
        size_bytes = path.stat().st_size
        make_whole(path, kept, make_run(dtype), after.version, ranks)
        return decode(path.read_bytes(), Adapter), size_bytes


def product(part: AdapterPart) -> np.ndarray[Any, np.dtype[np.float64]]:
    return unpack(part.frozen_b).astype(np.float64) @ unpack(part.frozen_a)


def deviations(found: Adapter, state: AdapterState, cut: Callable[..., tuple[AdapterPart, ...]]) -> list[float]:
    """Of each weight's context from the server's, in its norm."""
    ranks = [part.basis.shape[0] for part in found.parts]
    pairs = [
        (product(part), product(exact)) for part, exact in zip(found.parts, cut(state, ranks, "fp32"), strict=True)
    ]
    return [float(np.linalg.norm(got - true) / max(np.linalg.norm(true), 1e-30)) for got, true in pairs]


rounds = st.lists(
    st.tuples(st.lists(st.booleans(), min_size=3, max_size=3), st.booleans()), min_size=FULL_EVERY, max_size=FULL_EVERY
)
some_ranks = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1 << 30), plan=rounds, ranks=st.lists(some_ranks, min_size=9, max_size=9))
def test_differences_in_a_row_stay_close_to_the_server(seed: int, plan: Any, ranks: Any) -> None:
    """After FULL_EVERY rounds of any kind, with other ranks each, frozen factors are within BOUND; what no round
    changed and every basis are bit for bit what the whole adapter has."""
    rng = np.random.default_rng(seed)
    state = first_state()
    held = adapter(state, cut_basis(state, ranks[0], "bf16"))
    for (trained, new_basis), had, wanted in zip(plan, ranks, ranks[1:], strict=False):
        after = next_state(state, rng, trained, new_basis)
        made, _ = fetched(held, state, after, wanted, had=had)
        for old, new, whole, changed in zip(
            held.parts, made.parts, cut_basis(after, wanted, "bf16"), trained, strict=True
        ):
            assert new.basis == whole.basis
            assert changed or (new.frozen_b, new.frozen_a) == (old.frozen_b, old.frozen_a)
        held, state = made, after

    assert max(deviations(held, state, cut_basis)) <= BOUND


def test_one_difference_is_as_exact_as_its_format() -> None:
    """In fp32, nothing but rounding is lost; in bf16 no more than a whole adapter's rounding and as much again."""
    rng = np.random.default_rng(1)
    before = next_state(first_state(), rng, (True, True, True), True)
    after = next_state(before, rng, (True, True, False), True)
    ranks = (2, 4, 3)

    for dtype, most in (("fp32", 2.0**-21), ("bf16", 2.0**-7)):
        held = adapter(before, cut_basis(before, ranks, dtype))  # type: ignore[arg-type]
        made, _ = fetched(held, before, after, ranks, had=ranks, dtype=dtype)  # type: ignore[arg-type]
        assert max(deviations(made, after, cut_basis)) <= most


def test_a_full_frozen_part_costs_no_more_than_what_was_trained() -> None:
    """W' − W has the server's full rank, but a board with the whole basis is sent new columns of B alone."""
    rng = np.random.default_rng(2)
    before = first_state()
    for _ in range(4):
        before = next_state(before, rng, (True, True, True), True)
    after = next_state(before, rng, (True, True, True), False)
    ranks = (4, 4, 4)
    held = adapter(before, cut_basis(before, ranks, "bf16"))

    _, size_bytes = fetched(held, before, after, ranks, had=ranks)

    new_columns = sum(2 * 4 * weight.rows for weight in WEIGHTS)
    mixes = sum(2 * 8 * (2 * 8 + 4 + 4) for _ in WEIGHTS)
    assert size_bytes <= new_columns + mixes + 200 * len(WEIGHTS)
    assert size_bytes < 0.45 * len(encode(adapter(after, cut_basis(after, ranks, "bf16"))))


def test_the_same_version_at_other_ranks_sends_bases_alone() -> None:
    """A board whose plan changed between rounds holds every context already, to the bit."""
    state = next_state(first_state(), np.random.default_rng(4), (True, True, True), False)
    held = adapter(state, cut_basis(state, (1, 0, 2), "bf16"))

    made, size_bytes = fetched(held, state, state, (3, 2, 2), had=(1, 0, 2))

    assert made == adapter(state, cut_basis(state, (3, 2, 2), "bf16"))
    assert size_bytes < 2 * (3 * 160 + 2 * 64) + 400


@pytest.mark.parametrize("name", sorted(RULES))
def test_what_any_rule_sends_comes_out_of_its_difference(name: str) -> None:
    """Starts and bases bit for bit, frozen factors within the bound, whatever the ranks; a rule that sends starts
    sends them for the same weights always or the whole is asked for."""
    rng = np.random.default_rng(5)
    before = next_state(first_state(), rng, (True, True, True), True)
    after = next_state(before, rng, (True, False, True), True)
    cut = RULES[name].cut
    run = msgspec.structs.replace(
        make_run(), settings=msgspec.structs.replace(make_run().settings, own_basis=RULES[name].TRAITS.own_basis)
    )
    ranks = (3, 3, 3)
    had = ranks
    sent = adapter(after, cut(after, ranks, "bf16"))
    held = adapter(before, cut(before, had, "bf16"))
    parts = PatchMaker().parts(held.parts, sent.parts, cut(after, ranks, "fp32"))
    assert parts is not None
    difference = AdapterPatch(
        since=before.version, protocol=1, run_id="r", version=after.version, manifest=sent.manifest, parts=parts
    )

    with tempfile.TemporaryDirectory() as folder:
        path, kept = Path(folder, "new"), Path(folder, "held")
        path.write_bytes(encode(difference))
        kept.write_bytes(encode(held))
        make_whole(path, kept, run, after.version, ranks)
        made = decode(path.read_bytes(), Adapter)

    for new, whole in zip(made.parts, sent.parts, strict=True):
        assert (new.basis, new.start_b) == (whole.basis, whole.start_b)
        assert np.linalg.norm(product(new) - product(whole)) <= 4 * TOLERANCE["bf16"] * np.linalg.norm(product(whole))


def test_a_start_that_comes_or_goes_has_no_difference() -> None:
    """No message says that a start is to be forgotten: the whole is sent."""
    state = first_state()
    without = cut_basis(state, (2, 2, 2), "fp32")
    zeros = [Tensor(dtype="fp32", shape=(weight.rows, 2), data=bytes(8 * weight.rows)) for weight in WEIGHTS]
    started = tuple(msgspec.structs.replace(part, start_b=start) for part, start in zip(without, zeros, strict=True))

    assert PatchMaker().parts(without, started, started) is None
    assert PatchMaker().parts(started, without, without) is None


def test_changes_are_made_once_and_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards of the same ranks share the arithmetic; the memory for it is bounded."""
    rng = np.random.default_rng(6)
    before = first_state()
    after = next_state(before, rng, (True, True, True), False)
    counted = Mock(side_effect=patches.frozen_patches)
    monkeypatch.setattr(patches, "frozen_patches", counted)
    keeping = PatchMaker()
    ranks = (2, 2, 2)
    cuts = [cut_basis(before, ranks, "bf16"), cut_basis(after, ranks, "bf16"), cut_basis(after, ranks, "fp32")]

    first = keeping.parts(*cuts)
    assert keeping.parts(*cuts) == first
    assert counted.call_count == len(WEIGHTS)

    monkeypatch.setattr(patches, "MAX_KEPT_BYTES", 1)
    small = PatchMaker()
    assert small.parts(*cuts) == first and small.parts(*cuts) == first
    assert counted.call_count == 3 * len(WEIGHTS)
