"""A board's worker and a difference that is not what it should be: refused, and the file stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_client.engines.adapter_patch import make_whole
from edge_client.errors import DiskError, RefusedError
from tests.fakes.runs import TINY_T5, run_of
from wire.codec import decode, encode
from wire.manifest import manifest_digest
from wire.messages import Adapter, AdapterPart, AdapterPatch, FactorPatch, Tensor, WeightPatch
from wire.run import Weight
from wire.tensors import pack, unpack

WEIGHTS = (Weight(name="decoder.q", rows=12, columns=20), Weight(name="decoder.wo", rows=9, columns=16))
RUN: Any = msgspec.structs.replace(
    run_of(TINY_T5, max_rank=4, server_rank=6), weights=WEIGHTS, manifest=manifest_digest(WEIGHTS)
)
RANKS = (3, 2)
CONTEXT = 5

Edit = Callable[[AdapterPatch], AdapterPatch]
replace: Any = msgspec.structs.replace


def random(rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix (rows, columns) in bf16."""
    return pack(np.random.default_rng([seed, rows, columns]).standard_normal((rows, columns)), "bf16")


def held() -> Adapter:
    parts = tuple(
        AdapterPart(
            name=weight.name,
            frozen_b=random(weight.rows, CONTEXT),
            frozen_a=random(CONTEXT, weight.columns),
            basis=random(rank, weight.columns),
        )
        for weight, rank in zip(WEIGHTS, RANKS, strict=True)
    )
    return Adapter(protocol=1, run_id=RUN.run_id, version=4, manifest=RUN.manifest, parts=parts)


def difference() -> AdapterPatch:
    """To version 5: the first weight's frozen B is mixed of five held strands and two new ones, in A with three of the
    basis; its rank becomes 6."""
    part = WeightPatch(
        name="decoder.q",
        frozen_b=FactorPatch(new=random(12, 2), mix=random(7, 6)),
        frozen_a=FactorPatch(new=random(1, 20), mix=random(6, 5 + 3 + 1)),
    )
    return AdapterPatch(since=4, protocol=1, run_id=RUN.run_id, version=5, manifest=RUN.manifest, parts=(part,))


def with_part(**fields: Any) -> Edit:
    """The difference with other fields of its one part."""
    return lambda whole: replace(whole, parts=(replace(whole.parts[0], **fields),))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """The file that was fetched, and the one that is held."""
    fetched, kept = tmp_path / "adapter", tmp_path / "held"
    fetched.write_bytes(encode(difference()))
    kept.write_bytes(encode(held()))
    return fetched, kept


def test_a_difference_becomes_the_whole_adapter(files: tuple[Path, Path]) -> None:
    """B = [B | new]·mix and A = mix·[A over basis over new]; what is not named is as it was. Once whole, it stays."""
    make_whole(*files, RUN, 5, RANKS)
    made, before, change = decode(files[0].read_bytes(), Adapter), held(), difference().parts[0]

    assert made.version == 5 and made.parts[1] == before.parts[1] and made.parts[0].basis == before.parts[0].basis
    old, part = before.parts[0], made.parts[0]
    assert change.frozen_b and change.frozen_b.mix and change.frozen_a and change.frozen_a.mix
    b = np.hstack([unpack(old.frozen_b), unpack(change.frozen_b.new)]) @ unpack(change.frozen_b.mix)
    a = unpack(change.frozen_a.mix) @ np.vstack([unpack(old.frozen_a), unpack(old.basis), unpack(change.frozen_a.new)])
    np.testing.assert_allclose(unpack(part.frozen_b), b, rtol=2**-8, atol=1e-5)
    np.testing.assert_allclose(unpack(part.frozen_a), a, rtol=2**-8, atol=1e-5)

    whole = files[0].read_bytes()
    files[1].unlink()
    make_whole(*files, RUN, 5, RANKS)
    assert files[0].read_bytes() == whole


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda whole: replace(whole, since=3), "from version 3"),
        (lambda whole: replace(whole, version=6), "to 6"),
        (lambda whole: replace(whole, run_id="other"), "run other"),
        (lambda whole: replace(whole, manifest="0" * 64), "manifest"),
        (lambda whole: replace(whole, protocol=2), "protocol"),
        (lambda whole: replace(whole, parts=whole.parts * 2), "twice"),
        (with_part(name="decoder.k"), "decoder.k"),
        (with_part(frozen_b=FactorPatch(new=random(11, 2), mix=random(7, 6))), "frozen_b"),
        (with_part(frozen_b=FactorPatch(new=random(12, 2), mix=random(8, 6))), "frozen_b.mix"),
        (with_part(frozen_b=FactorPatch(new=random(12, 7), mix=random(12, 6))), "7 new strands"),
        (with_part(frozen_b=FactorPatch(new=random(12, 2), mix=random(7, 5))), "ranks 5 and 6"),
        (with_part(frozen_b=None), "ranks 5 and 6"),
        (with_part(frozen_a=FactorPatch(new=random(6, 19))), "frozen_a"),
        (with_part(frozen_a=FactorPatch(new=random(1, 20), mix=random(6, 6))), "frozen_a.mix"),
        (
            with_part(frozen_b=FactorPatch(new=random(12, 7)), frozen_a=FactorPatch(new=random(7, 20))),
            "at most 6",
        ),
        (with_part(basis=random(4, 20)), "basis"),
        (with_part(basis=random(3, 16)), "basis"),
        (with_part(start_b=random(12, 2)), "start_b"),
    ],
)
def test_what_does_not_fit_is_refused(files: tuple[Path, Path], edit: Edit, says: str) -> None:
    """Every shape, name, version and run is checked; what was fetched and what is held stay as they were."""
    sent = encode(edit(difference()))
    files[0].write_bytes(sent)
    kept = files[1].read_bytes()

    with pytest.raises(RefusedError, match=says):
        make_whole(*files, RUN, 5, RANKS)

    assert files[0].read_bytes() == sent and files[1].read_bytes() == kept


def test_other_ranks_than_asked_for_are_refused(files: tuple[Path, Path]) -> None:
    """A difference without the bases of new ranks does not lead to the adapter that was asked for."""
    with pytest.raises(RefusedError, match="basis"):
        make_whole(*files, RUN, 5, (4, 2))


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:40], lambda data: data + b"x"])
def test_a_damaged_file_is_refused(files: tuple[Path, Path], damage: Callable[[bytes], bytes]) -> None:
    """Of the two, whichever is damaged."""
    for file in files:
        sound = file.read_bytes()
        file.write_bytes(damage(sound))
        with pytest.raises(RefusedError):
            make_whole(*files, RUN, 5, RANKS)
        file.write_bytes(sound)


def test_values_that_are_not_finite_are_refused(files: tuple[Path, Path]) -> None:
    """Neither NaN that was sent nor an overflow of the mix reaches training."""
    for bits in (b"\xc0\x7f", b"\x7f\x7f"):  # NaN, and the largest bf16
        new = Tensor(dtype="bf16", shape=(12, 2), data=bits * 24)
        mix = Tensor(dtype="bf16", shape=(7, 6), data=bits * 42)
        files[0].write_bytes(encode(with_part(frozen_b=FactorPatch(new=new, mix=mix))(difference())))
        with pytest.raises(RefusedError):
            make_whole(*files, RUN, 5, RANKS)


def test_a_lost_file_is_an_error_of_the_disk(files: tuple[Path, Path]) -> None:
    """The network side fetches the whole then."""
    files[1].unlink()
    with pytest.raises(DiskError):
        make_whole(*files, RUN, 5, RANKS)
