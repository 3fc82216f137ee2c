"""Keys are consumed strictly: whatever is missing, extra, repeated or misshapen is refused by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import pytest
from msgspec.structs import replace

from tests.fakes.messages import (
    ADAPTER,
    PROFILE,
    RANKS,
    RUN,
    UPDATE,
    WEIGHTS,
    WI,
    WO,
    Q,
    adapter,
    adapter_part,
    profile,
    sketched,
    tensor,
    update,
)
from wire.checks import (
    basis_rank,
    check_adapter,
    check_profile,
    check_ranks,
    check_run,
    check_update,
    equal_ranks,
    part_rank,
)
from wire.errors import ProtocolVersionError, WireError
from wire.messages import AdapterPart, NamedTensor, RoundSpec, Trains, Update, UpdatePart
from wire.run import Importance

TRAINED: dict[Trains, UpdatePart] = {
    "b": Q,
    "a": UpdatePart(name="q", b=tensor(6, 0), a=tensor(5, 9)),
    "both": UpdatePart(name="q", b=tensor(6, 5), a=tensor(5, 9)),
}
"""What a board sends of weight q, by the factors that the round trains."""


def judge_update(
    sent: Update, *, sketch: bool = True, trains: Trains = "b", ranks: Sequence[int] | None = None
) -> None:
    check_update(sent, RUN, RoundSpec(round=2, version=1, sketch=sketch, trains=trains), ranks=ranks)


def test_what_fits_passes() -> None:
    """A run before and after its first basis, adapters with and without context, updates with and without sketches."""
    check_run(RUN)
    check_run(replace(RUN, values=()))
    check_run(replace(RUN, settings=replace(RUN.settings, max_source_tokens=0, max_target_tokens=0)))  # still open
    check_adapter(ADAPTER, RUN, RANKS, version=1)
    bare = adapter([adapter_part(w, 0, 0) for w in WEIGHTS])
    check_adapter(replace(bare, version=0), RUN, (0, 0, 0), version=0)
    judge_update(UPDATE, sketch=False)
    judge_update(UPDATE, ranks=RANKS)
    judge_update(
        update([Q, replace(WI, sketch=sketched(WEIGHTS[1])), replace(WO, sketch=sketched(WEIGHTS[2]))]), ranks=RANKS
    )
    check_profile(PROFILE, RUN)
    check_profile(profile(PROFILE.sketches[1:]), RUN)
    check_profile(replace(PROFILE, scores=(0.0, 1e300, 5e-324)), RUN, importance="adalora")


def test_basis_has_no_more_rows_than_the_weight() -> None:
    """R = min(max_rank, rows, columns), for tall and wide weights."""
    assert [basis_rank(weight, 5) for weight in WEIGHTS] == [5, 3, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": (*WEIGHTS, WEIGHTS[1])}, "weight wi is listed twice"),
        ({"weights": WEIGHTS[:2]}, "not that of the weights"),
        ({"manifest": "0" * 64}, "not that of the weights"),
        ({"settings": replace(RUN.settings, max_source_tokens=7)}, "max_source_tokens is 7, it must be 8"),
        ({"settings": replace(RUN.settings, max_target_tokens=1)}, "max_target_tokens is 1, it must be 2"),
        ({"values": RUN.values[:2]}, "values of 2 weights, the manifest has 3"),
        ({"values": (*RUN.values[:2], (1.0,) * 5)}, "wo: 5 strand values, its basis has 4 rows"),
        ({"values": (*RUN.values[:2], (1.0, 2.0, 0.0, 0.0))}, "wo: strand values are not in falling order"),
    ],
)
def test_run_that_contradicts_itself(change: dict[str, object], said: str) -> None:
    """A renamed weight, a list of the wrong length or values out of order are found before anything is planned."""
    with pytest.raises(WireError, match=said):
        check_run(replace(RUN, **change))


def test_other_version_is_its_own_error() -> None:
    """A run, adapter, update or profile of another protocol version is told apart from a damaged one."""
    checks: list[Callable[[], None]] = [
        lambda: check_run(replace(RUN, protocol=2)),
        lambda: check_adapter(replace(ADAPTER, protocol=2), RUN, RANKS, version=1),
        lambda: judge_update(replace(UPDATE, protocol=2)),
        lambda: check_profile(replace(PROFILE, protocol=2), RUN),
    ]
    for check in checks:
        with pytest.raises(ProtocolVersionError):
            check()


def test_another_run_or_manifest() -> None:
    """What belongs to another run, or to another list of weights, is refused for that reason."""
    for change, said in (({"run_id": "run-0"}, "belongs to run run-0"), ({"manifest": "1" * 64}, "manifest digest")):
        with pytest.raises(WireError, match=f"adapter .*{said}"):
            check_adapter(replace(ADAPTER, **change), RUN, RANKS, version=1)
        with pytest.raises(WireError, match=f"update .*{said}"):
            judge_update(replace(UPDATE, **change))
        with pytest.raises(WireError, match=f"profile .*{said}"):
            check_profile(replace(PROFILE, **change), RUN)


@pytest.mark.parametrize(
    ("ranks", "said"),
    [((5, 0), "2 ranks, .* 3 weights"), ((5, 4, 0), "wi: rank 4, allowed are 0 to 3"), ((-1, 0, 0), "q: ")],
)
def test_ranks_fit_the_run(ranks: Sequence[int], said: str) -> None:
    """The server reads ranks from a query string: one per weight, within the basis."""
    with pytest.raises(WireError, match=said):
        check_ranks(ranks, RUN)


def test_adapter_of_another_version() -> None:
    """A cache that answers with another version is found out."""
    with pytest.raises(WireError, match="adapter is of version 1, 2 was asked for"):
        check_adapter(ADAPTER, RUN, RANKS, version=2)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (ADAPTER.parts[:2], "adapter lacks weight wo"),
        ((), "adapter lacks weight q"),
        ((replace(ADAPTER.parts[0], name="query"), *ADAPTER.parts[1:]), "adapter lacks weight q$"),
        ((*ADAPTER.parts, replace(ADAPTER.parts[0], name="k")), "adapter has weight k, which is not in the run's"),
        ((*ADAPTER.parts, ADAPTER.parts[1]), "adapter has weight wi twice"),
        (ADAPTER.parts[::-1], "not in the manifest's order"),
        ((adapter_part(WEIGHTS[0], 4), *ADAPTER.parts[1:]), r"q.basis has shape \[4, 9\], \[5, 9\] is needed"),
        (
            (adapter_part(WEIGHTS[0], 5, 3), *ADAPTER.parts[1:]),
            "q: frozen factors of rank 3, the run's server_rank is 2",
        ),
        ((replace(ADAPTER.parts[0], frozen_a=tensor(1, 9)), *ADAPTER.parts[1:]), r"q.frozen_a has shape \[1, 9\]"),
        ((replace(ADAPTER.parts[0], frozen_b=tensor(9, 2)), *ADAPTER.parts[1:]), r"q.frozen_b has shape \[9, 2\]"),
        ((replace(ADAPTER.parts[0], basis=tensor(5, 6)), *ADAPTER.parts[1:]), r"q.basis has shape \[5, 6\]"),
    ],
)
def test_adapter_is_consumed_strictly(parts: Sequence[AdapterPart], said: str) -> None:
    """Exactly the manifest's weights in order, each of the shape asked for."""
    with pytest.raises(WireError, match=said):
        check_adapter(adapter(parts), RUN, RANKS, version=1)


def test_adapter_with_a_start() -> None:
    """Boards may begin at a B of the rank that they asked for, or at zero; another shape is refused."""
    start = replace(ADAPTER.parts[0], start_b=tensor(6, 5))

    check_adapter(adapter((start, *ADAPTER.parts[1:])), RUN, RANKS, version=1)
    for wrong in (tensor(6, 4), tensor(9, 5), tensor(6, 0)):
        with pytest.raises(WireError, match=r"q.start_b has shape .*, \[6, 5\] is needed"):
            check_adapter(adapter((replace(start, start_b=wrong), *ADAPTER.parts[1:])), RUN, RANKS, version=1)


def test_adapter_for_boards_that_draw_their_own_basis() -> None:
    """It carries no row of a basis, whatever was asked for, and no B that would belong to one."""
    parts = tuple(replace(part, basis=tensor(0, part.basis.shape[1])) for part in ADAPTER.parts)

    check_adapter(adapter(parts), RUN, RANKS, version=1, own_basis=True)
    with pytest.raises(WireError, match=r"q.basis has shape \[5, 9\], \[0, 9\] is needed"):
        check_adapter(ADAPTER, RUN, RANKS, version=1, own_basis=True)
    with pytest.raises(WireError, match=r"q.basis has shape \[0, 9\], \[5, 9\] is needed"):
        check_adapter(adapter(parts), RUN, RANKS, version=1)
    with pytest.raises(WireError, match=r"q\.start_b: boards of this run draw their own A"):
        start = replace(parts[0], start_b=tensor(6, 5))
        check_adapter(adapter((start, *parts[1:])), RUN, RANKS, version=1, own_basis=True)


@pytest.mark.parametrize(("sent", "asked"), tuple(product(TRAINED, TRAINED)))
def test_update_has_the_factors_that_the_round_trains(sent: Trains, asked: Trains) -> None:
    """Those and no others; what a weight's rank is can be read from either."""
    part = TRAINED[sent]

    assert part_rank(part) == 5
    if sent == asked:
        judge_update(update([part]), trains=asked, ranks=(5, 0, 0))
    else:
        with pytest.raises(WireError, match=r"^q[.]"):
            judge_update(update([part]), trains=asked)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (replace(TRAINED["both"], a=tensor(4, 9)), r"q.b has shape \[6, 5\], \[6, 4\] is needed"),
        (replace(TRAINED["both"], a=tensor(5, 6)), r"q.a has shape \[5, 6\], \[5, 9\] is needed"),
        (replace(TRAINED["both"], b=tensor(6, 6), a=tensor(6, 9)), "q: rank 6, at most 5 may be trained"),
        (replace(TRAINED["both"], b=tensor(6, 0), a=tensor(0, 9)), "q: neither strands nor a sketch"),
        (replace(TRAINED["both"], b=tensor(6, 0), a=None), "q: neither strands nor a sketch"),
    ],
)
def test_a_and_b_fit_each_other_and_the_weight(part: UpdatePart, said: str) -> None:
    """Where a round trains both."""
    with pytest.raises(WireError, match=said):
        judge_update(update([part]), trains="both")


@pytest.mark.parametrize("trains", TRAINED)
def test_a_weight_may_be_sketched_alone_whatever_is_trained(trains: Trains) -> None:
    """It has no strand of either factor."""
    judge_update(update([replace(WI, sketch=sketched(WEIGHTS[1]))]), trains=trains, ranks=(0, 0, 0))


def test_equal_ranks_are_those_that_each_weight_can_have() -> None:
    """min(rank, R), of every weight: what all boards train where a rule needs it."""
    assert [equal_ranks(RUN, rank) for rank in (1, 4, 256)] == [(1, 1, 1), (4, 3, 4), (5, 3, 4)]
    check_ranks(equal_ranks(RUN, 4), RUN)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((replace(Q, name="query"), WO), "update has weight query, which is not in the run's manifest"),
        ((Q, Q), "update has weight q twice"),
        ((WO, Q), "not in the manifest's order"),
        ((replace(Q, b=tensor(9, 5)), WO), r"q.b has shape \[9, 5\], \[6, 5\] is needed"),
        ((replace(Q, b=tensor(6, 6)), WO), "q: rank 6, at most 5 may be trained"),
        ((Q, WI), "wi: neither strands nor a sketch"),
        ((replace(Q, sketch=tensor(5, 6)), WO), r"q.sketch has shape \[5, 6\], \[5, 9\] is needed"),
    ],
)
def test_update_is_consumed_strictly(parts: Sequence[UpdatePart], said: str) -> None:
    """Only weights of the manifest, in order, once, in shape, and none that carries nothing."""
    with pytest.raises(WireError, match=said):
        judge_update(update(parts))


def test_update_of_another_round() -> None:
    """Round and version are both held against the round that is open."""
    for change in ({"round": 1}, {"version": 0}):
        with pytest.raises(WireError, match="this is round 2 on 1"):
            judge_update(replace(UPDATE, **change))


def test_sketch_that_nobody_asked_for() -> None:
    """In a round without sketches a lone sketch would choose the next basis by itself."""
    with pytest.raises(WireError, match=r"q\.sketch: this round did not ask"):
        judge_update(update([replace(Q, sketch=sketched(WEIGHTS[0])), WO]), sketch=False)


@pytest.mark.parametrize("ranks", [(5, 1, 2), (4, 0, 2), (5, 0, 0)])
def test_update_is_held_against_the_plan(ranks: Sequence[int]) -> None:
    """With the planned ranks a weight that is missing, extra or of another rank is found too."""
    with pytest.raises(WireError, match="the plan says"):
        judge_update(UPDATE, ranks=ranks)


@pytest.mark.parametrize(
    ("sketches", "said"),
    [
        ((replace(PROFILE.sketches[0], name="k"),), "profile has weight k"),
        ((PROFILE.sketches[0], PROFILE.sketches[0]), "profile has weight q twice"),
        (PROFILE.sketches[::-1], "not in the manifest's order"),
        ((NamedTensor(name="wi", tensor=tensor(5, 3)),), r"wi.sketch has shape \[5, 3\], \[3, 3\] is needed"),
    ],
)
def test_profile_is_consumed_strictly(sketches: Sequence[NamedTensor], said: str) -> None:
    """Sketches of the manifest's weights, in order, once, with R rows."""
    with pytest.raises(WireError, match=said):
        check_profile(profile(sketches), RUN)


@pytest.mark.parametrize(
    ("importance", "scores", "said"),
    [
        ("sketch", (1.0, 0.0, 0.0), "3 scores, this run ranks weights by their sketches"),
        ("adalora", (), "0 scores for 3 sketches, this run ranks weights by adalora"),
        ("magnitude_gradient", (1.0, 1.0), "2 scores for 3 sketches"),
        ("adalora", (1.0, 1.0, 1.0, 1.0), "4 scores for 3 sketches"),
        ("adalora", (0.0, 0.0, 0.0), "no score above zero"),
    ],
)
def test_scores_are_those_that_the_run_asks_for(importance: Importance, scores: Sequence[float], said: str) -> None:
    """One per sketch where weights are ranked by a score, none where they are ranked by sketches."""
    with pytest.raises(WireError, match=said):
        check_profile(replace(PROFILE, scores=tuple(scores)), RUN, importance=importance)
