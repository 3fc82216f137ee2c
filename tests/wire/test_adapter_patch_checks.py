"""An adapter's difference to the one that a board holds: refused by name unless it leads to one that fits the run."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.fakes.runs import TINY_T5, run_of
from wire.adapter_patch import START_BYTES, is_patch
from wire.checks import check_adapter, check_patch
from wire.codec import encode
from wire.errors import ProtocolVersionError, WireError
from wire.messages import Adapter, AdapterPart, AdapterPatch, FactorPatch, Tensor, WeightPatch, tensor_bytes

RUN = run_of(TINY_T5, {"scope": "decoder"}, max_rank=5, server_rank=4)
RANKS = [5] * len(RUN.weights)
FIRST, SECOND = RUN.weights[:2]
HELD_RANK, BASIS_RANK = 3, 5


def tensor(rows: int, columns: int) -> Tensor:
    return Tensor(dtype="bf16", shape=(rows, columns), data=bytes(tensor_bytes("bf16", rows * columns)[0]))


HELD = Adapter(
    protocol=1,
    run_id=RUN.run_id,
    version=1,
    manifest=RUN.manifest,
    parts=tuple(
        AdapterPart(
            name=weight.name,
            frozen_b=tensor(weight.rows, HELD_RANK),
            frozen_a=tensor(HELD_RANK, weight.columns),
            basis=tensor(BASIS_RANK, weight.columns),
        )
        for weight in RUN.weights
    ),
)


def mixed(new: int, after: int) -> tuple[FactorPatch, FactorPatch]:
    """Changes of the first weight's B and A to rank `after`, from `new` strands beside the held ones; A also from the
    rows of the held basis."""
    b = FactorPatch(new=tensor(FIRST.rows, new), mix=tensor(HELD_RANK + new, after))
    a = FactorPatch(new=tensor(new, FIRST.columns), mix=tensor(after, HELD_RANK + BASIS_RANK + new))
    return b, a


def difference(*parts: WeightPatch) -> AdapterPatch:
    return AdapterPatch(since=1, protocol=1, run_id=RUN.run_id, version=2, manifest=RUN.manifest, parts=tuple(parts))


def part(b: FactorPatch | None, a: FactorPatch | None) -> WeightPatch:
    return WeightPatch(name=FIRST.name, frozen_b=b, frozen_a=a)


def judge(sent: AdapterPatch) -> None:
    check_patch(sent, HELD, RUN, version=2)


@pytest.mark.parametrize(("new", "after"), [(0, 3), (1, 4), (4, 4), (4, 1), (2, 0)])
def test_what_fits_passes(new: int, after: int) -> None:
    """Factors that are mixed, replaced, or left as they are; also nothing at all."""
    check_adapter(HELD, RUN, RANKS, version=1)
    b, a = mixed(new, after)
    whole_b = FactorPatch(new=tensor(FIRST.rows, after))

    judge(difference(part(b, a)))
    judge(difference(part(whole_b, a)))
    judge(difference())
    judge(difference(WeightPatch(name=SECOND.name, basis=tensor(5, SECOND.columns))))


MIXED_B, MIXED_A = mixed(1, 4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (part(MIXED_B, None), "ranks 4 and 3, one is needed"),
        (part(*mixed(4, 5)), "ranks 5 and 5, one is needed, at most 4"),
        (part(*mixed(5, 4)), r"frozen_b: 5 new strands, at most 4 are sent"),
        (part(replace(MIXED_B, new=tensor(FIRST.columns, 1)), MIXED_A), r"frozen_b has shape \[64, 1\], \[48, 1\]"),
        (part(replace(MIXED_B, mix=tensor(3, 4)), MIXED_A), r"frozen_b.mix has shape \[3, 4\], \[4, 4\]"),
        (part(MIXED_B, replace(MIXED_A, mix=tensor(4, 3))), r"frozen_a.mix has shape \[4, 3\], \[4, 9\]"),
        (part(FactorPatch(new=tensor(FIRST.columns, 3)), None), r"frozen_b has shape \[64, 3\], \[48, 3\]"),
        (part(None, FactorPatch(new=tensor(3, FIRST.rows))), r"frozen_a has shape \[3, 48\], \[3, 64\]"),
        (WeightPatch(name="q"), "patch has weight q, which is not in the run's manifest"),
    ],
)
def test_difference_is_consumed_strictly(changed: WeightPatch, said: str) -> None:
    """Whatever does not fit the weight, the held factor or the run is named."""
    assert (FIRST.rows, FIRST.columns) == (48, 64)
    with pytest.raises(WireError, match=said):
        judge(difference(changed))


def test_it_must_lead_from_what_is_held_to_what_was_asked_for() -> None:
    """Another version on either side, another run, a weight twice or that is not held, another protocol."""
    sent = difference(part(*mixed(1, 4)))

    for change, said in (
        ({"since": 0}, "leads from version 0 to 2, it should from 1 to 2"),
        ({"version": 3}, "leads from version 1 to 3"),
        ({"run_id": "other"}, "belongs to run other"),
        ({"parts": sent.parts * 2}, "twice"),
    ):
        with pytest.raises(WireError, match=said):
            judge(replace(sent, **change))
    with pytest.raises(ProtocolVersionError):
        judge(replace(sent, protocol=2))
    with pytest.raises(WireError, match=f"held adapter lacks weight {FIRST.name}"):
        check_patch(sent, replace(HELD, parts=HELD.parts[1:]), RUN, version=2)


def test_the_first_bytes_tell_the_two_answers_apart() -> None:
    """However many parts there are, and of files that are neither."""
    for parts in ((), (part(*mixed(1, 4)),)):
        assert is_patch(encode(difference(*parts))[:START_BYTES])
    assert not is_patch(encode(HELD)[:START_BYTES])
    assert not any(is_patch(start) for start in (b"", b"\x86", b"\x86\xa5sinc", b"x" * 100))
