"""Checks of whole messages against the run, which their types cannot express; both sides make the same ones.

Keys are consumed strictly. A missing, extra, repeated or misshapen tensor is an error that names it; the commonest
silent failure of federated training is an adapter whose keys matched nothing. No numpy: shapes are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol

from wire.codec import check_protocol
from wire.errors import WireError
from wire.limits import MIN_SOURCE_TOKENS, MIN_TARGET_TOKENS
from wire.manifest import manifest_digest
from wire.messages import (
    Adapter,
    AdapterPart,
    AdapterPatch,
    FactorPatch,
    NamedTensor,
    Profile,
    RoundSpec,
    Tensor,
    Update,
    UpdatePart,
    WeightPatch,
)
from wire.run import Importance, RunInfo, Weight


class Agreed(Protocol):
    """Facts of a run that both sides hold fixed. A RunInfo is one; a server may pass a struct of its own."""

    @property
    def run_id(self) -> str: ...
    @property
    def weights(self) -> tuple[Weight, ...]: ...
    @property
    def manifest(self) -> str: ...
    @property
    def max_rank(self) -> int: ...
    @property
    def server_rank(self) -> int: ...


class _Sent(Protocol):
    """A message with tensors: it says which run and which list of weights it is about."""

    @property
    def protocol(self) -> int: ...
    @property
    def run_id(self) -> str: ...
    @property
    def manifest(self) -> str: ...


def basis_rank(weight: Weight, max_rank: int) -> int:
    """R, the rows of a weight's shared basis and of its gradient sketch."""
    return min(max_rank, weight.rows, weight.columns)


def equal_ranks(run: Agreed, rank: int) -> tuple[int, ...]:
    """Ranks (manifest order) of every board of a run whose `settings.rank` is `rank`, above 0."""
    return tuple(min(rank, basis_rank(weight, run.max_rank)) for weight in run.weights)


def part_rank(part: UpdatePart) -> int:
    """How many strands of its weight a part has trained."""
    return part.b.shape[1] if part.a is None else part.a.shape[0]


def check_run(run: RunInfo) -> None:
    """Raise WireError unless the run is consistent: version, unique names, manifest digest, lengths of texts, and the
    lists of σ²."""
    check_protocol(run.protocol)
    settings = run.settings
    for name, tokens, least in (
        ("max_source_tokens", settings.max_source_tokens, MIN_SOURCE_TOKENS),
        ("max_target_tokens", settings.max_target_tokens, MIN_TARGET_TOKENS),
    ):
        if 0 < tokens < least:
            raise WireError(f"run {run.run_id}: {name} is {tokens}, it must be {least} at least, or 0")
    names = [weight.name for weight in run.weights]
    if twice := _first_repeated(names):
        raise WireError(f"run {run.run_id}: weight {twice} is listed twice")
    if manifest_digest(run.weights) != run.manifest:
        raise WireError(f"run {run.run_id}: the manifest's digest is not that of the weights it lists")
    if run.values and len(run.values) != len(run.weights):
        raise WireError(f"run {run.run_id}: values of {len(run.values)} weights, the manifest has {len(run.weights)}")
    for weight, values in zip(run.weights, run.values, strict=False):  # no values at all before the first basis
        rank = basis_rank(weight, run.max_rank)
        if len(values) != rank:
            raise WireError(f"{weight.name}: {len(values)} strand values, its basis has {rank} rows")
        if any(first < second for first, second in pairwise(values)):
            raise WireError(f"{weight.name}: strand values are not in falling order")


def check_ranks(ranks: Sequence[int], run: Agreed) -> None:
    """Raise WireError unless there is one rank per weight, none beyond its basis."""
    if len(ranks) != len(run.weights):
        raise WireError(f"{len(ranks)} ranks, the manifest has {len(run.weights)} weights")
    for weight, rank in zip(run.weights, ranks, strict=True):
        most = basis_rank(weight, run.max_rank)
        if not 0 <= rank <= most:
            raise WireError(f"{weight.name}: rank {rank}, allowed are 0 to {most}")


def check_adapter(
    adapter: Adapter, run: Agreed, ranks: Sequence[int], *, version: int, own_basis: bool = False
) -> None:
    """Raise WireError unless `adapter` is the answer to a request for `version` with `ranks` (manifest order).

    Every weight of the manifest must be there, in order: frozen_b (m, s), frozen_a (s, n), s ≤ server_rank, and
    basis (r, n) with the r asked for, or (0, n) in a run whose boards draw their own, who begin at B = 0; start_b
    (m, r) or nil. A weight without a frozen adapter has s = 0.
    """
    _check_sent(adapter, run, "adapter")
    if adapter.version != version:
        raise WireError(f"adapter is of version {adapter.version}, {version} was asked for")
    check_ranks(ranks, run)
    names = [part.name for part in adapter.parts]
    if missing := _first_missing(_names(run), names):
        raise WireError(f"adapter lacks weight {missing}")
    weights = _in_manifest_order(names, run, "adapter")
    for part, weight, rank in zip(adapter.parts, weights, ranks, strict=True):
        _check_frozen(part, weight, run.server_rank)
        _check_strands(part, weight, rank, own_basis)


def check_patch(patch: AdapterPatch, held: Adapter, run: Agreed, *, version: int) -> None:
    """Raise WireError unless `patch` leads from `held`, an adapter of this run, to one of `version`.

    Parts are some of the manifest's weights, in its order. A factor with a mix has at most server_rank new columns (B)
    or rows (A), and a mix that fits them and the held factor. Frozen factors come out as (m, s)·(s, n), s at most
    server_rank. What basis and start_b must be, `check_adapter` says of the result.
    """
    _check_sent(patch, run, "patch")
    _check_sent(held, run, "held adapter")
    if (patch.version, patch.since) != (version, held.version):
        raise WireError(
            f"patch leads from version {patch.since} to {patch.version}, it should from {held.version} to {version}"
        )
    weights = _in_manifest_order([part.name for part in patch.parts], run, "patch")
    parts = {part.name: part for part in held.parts}
    for part, weight in zip(patch.parts, weights, strict=True):
        if weight.name not in parts:
            raise WireError(f"held adapter lacks weight {weight.name}")
        _check_weight_patch(part, parts[weight.name], weight, run.server_rank)


def check_update(update: Update, run: Agreed, spec: RoundSpec, *, ranks: Sequence[int] | None = None) -> None:
    """Raise WireError unless `update` belongs to the round of `spec` and its tensors fit the run's manifest.

    Parts are some of the manifest's weights, in its order, with r ≤ R: b (m, r), or (m, 0) where A alone is trained;
    a (r, n) just where the round `trains` it; and a sketch (R, n) only if the round asked for sketches. `ranks` (one
    per weight, as planned) makes it strict: every weight with r > 0 must be there with just that r.
    """
    _check_sent(update, run, "update")
    if (update.round, update.version) != (spec.round, spec.version):
        raise WireError(
            f"update is of round {update.round} on version {update.version}, "
            f"this is round {spec.round} on {spec.version}"
        )
    if update.version_digest != spec.version_digest:
        raise WireError(f"update was trained on another version {spec.version} than this server's")
    weights = _in_manifest_order([part.name for part in update.parts], run, "update")
    for part, weight in zip(update.parts, weights, strict=True):
        _check_update_part(part, weight, basis_rank(weight, run.max_rank), spec)
    if ranks is not None:
        check_ranks(ranks, run)
        _check_trained(update, run, ranks)


def check_profile(profile: Profile, run: Agreed, *, importance: Importance = "sketch") -> None:
    """Raise WireError unless every sketch of `profile` is (R, n) of a weight of the manifest, in its order.

    `importance` is that of the run's settings. Where it is "sketch" there must be no scores, else one per sketch, not
    all of them zero.
    """
    _check_sent(profile, run, "profile")
    weights = _in_manifest_order([part.name for part in profile.sketches], run, "profile")
    for sketch, weight in zip(profile.sketches, weights, strict=True):
        _check_sketch(sketch, weight, basis_rank(weight, run.max_rank))
    _check_scores(profile, importance)


def _check_sent(sent: _Sent, run: Agreed, what: str) -> None:
    check_protocol(sent.protocol)
    if sent.run_id != run.run_id:
        raise WireError(f"{what} belongs to run {sent.run_id}, this is run {run.run_id}")
    if sent.manifest != run.manifest:
        raise WireError(
            f"{what} lists the weights of another base or scope: its manifest digest differs from the run's"
        )


def _check_weight_patch(part: WeightPatch, held: AdapterPart, weight: Weight, server_rank: int) -> None:
    before = held.frozen_b.shape[1]
    rank_b = before if part.frozen_b is None else (part.frozen_b.mix or part.frozen_b.new).shape[1]
    rank_a = before if part.frozen_a is None else (part.frozen_a.mix or part.frozen_a.new).shape[0]
    if rank_b != rank_a or rank_b > server_rank:
        raise WireError(
            f"{weight.name}: frozen factors of ranks {rank_b} and {rank_a}, one is needed, at most {server_rank}"
        )
    if part.frozen_b is not None:
        _check_factor_patch(part.frozen_b, "b", weight, (before, rank_b), server_rank)
    if part.frozen_a is not None:
        _check_factor_patch(part.frozen_a, "a", weight, (before + held.basis.shape[0], rank_a), server_rank)


def _check_factor_patch(
    change: FactorPatch, side: str, weight: Weight, ranks: tuple[int, int], server_rank: int
) -> None:
    """`ranks`: how many held columns (B) or rows (A) are mixed, and how many the change makes of them."""
    before, after = ranks
    n_new = after if change.mix is None else change.new.shape[1 if side == "b" else 0]
    if n_new > server_rank:
        raise WireError(f"{weight.name}.frozen_{side}: {n_new} new strands, at most {server_rank} are sent")
    new = (weight.rows, n_new) if side == "b" else (n_new, weight.columns)
    _check_shape(change.new, new, f"{weight.name}.frozen_{side}")
    if change.mix is not None:
        mix = (before + n_new, after) if side == "b" else (after, before + n_new)
        _check_shape(change.mix, mix, f"{weight.name}.frozen_{side}.mix")


def _check_frozen(part: AdapterPart, weight: Weight, server_rank: int) -> None:
    frozen_rank = part.frozen_b.shape[1]
    if frozen_rank > server_rank:
        raise WireError(f"{weight.name}: frozen factors of rank {frozen_rank}, the run's server_rank is {server_rank}")
    _check_shape(part.frozen_b, (weight.rows, frozen_rank), f"{weight.name}.frozen_b")
    _check_shape(part.frozen_a, (frozen_rank, weight.columns), f"{weight.name}.frozen_a")


def _check_strands(part: AdapterPart, weight: Weight, rank: int, own_basis: bool) -> None:
    _check_shape(part.basis, (0 if own_basis else rank, weight.columns), f"{weight.name}.basis")
    if part.start_b is None:
        return
    if own_basis:
        raise WireError(f"{weight.name}.start_b: boards of this run draw their own A, on which it would mean nothing")
    _check_shape(part.start_b, (weight.rows, rank), f"{weight.name}.start_b")


def _check_update_part(part: UpdatePart, weight: Weight, most: int, spec: RoundSpec) -> None:
    if part.a is not None and spec.trains == "b":
        raise WireError(f"{weight.name}.a: this round trains B alone")
    if part.a is None and spec.trains == "both" and part.b.shape[1]:
        raise WireError(f"{weight.name}.a is missing: this round trains A")
    rank = part_rank(part)
    if rank > most:
        raise WireError(f"{weight.name}: rank {rank}, at most {most} may be trained")
    _check_shape(part.b, (weight.rows, 0 if spec.trains == "a" else rank), f"{weight.name}.b")
    if part.a is not None:
        _check_shape(part.a, (rank, weight.columns), f"{weight.name}.a")
    if part.sketch is None:
        if rank == 0:
            raise WireError(f"{weight.name}: neither strands nor a sketch")
        return
    if not spec.sketch:  # else one board alone could choose the next basis
        raise WireError(f"{weight.name}.sketch: this round did not ask for sketches")
    _check_sketch(NamedTensor(name=part.name, tensor=part.sketch), weight, most)


def _check_sketch(sketch: NamedTensor, weight: Weight, rank: int) -> None:
    _check_shape(sketch.tensor, (rank, weight.columns), f"{weight.name}.sketch")


def _check_scores(profile: Profile, importance: Importance) -> None:
    n_scores, n_sketches = len(profile.scores), len(profile.sketches)
    if importance == "sketch":
        if n_scores:
            raise WireError(f"profile has {n_scores} scores, this run ranks weights by their sketches")
        return
    if n_scores != n_sketches:
        raise WireError(
            f"profile has {n_scores} scores for {n_sketches} sketches, this run ranks weights by {importance}: "
            "one score per sketch is needed"
        )
    if not any(profile.scores):  # a board says which share each weight has: of zero there is none
        raise WireError("profile has no score above zero: it says nothing about the weights")


def _check_trained(update: Update, run: Agreed, ranks: Sequence[int]) -> None:
    sent = {part.name: part_rank(part) for part in update.parts}
    for weight, rank in zip(run.weights, ranks, strict=True):
        if sent.get(weight.name, 0) != rank:
            raise WireError(f"{weight.name}: rank {sent.get(weight.name, 0)}, the plan says {rank}")


def _check_shape(tensor: Tensor, shape: tuple[int, int], what: str) -> None:
    if tensor.shape != shape:
        raise WireError(f"{what} has shape {list(tensor.shape)}, {list(shape)} is needed")


def _in_manifest_order(names: Sequence[str], run: Agreed, what: str) -> list[Weight]:
    """The weights of these names. Raises WireError for a name that is unknown, repeated or out of order."""
    places = {weight.name: i for i, weight in enumerate(run.weights)}
    if unknown := next((name for name in names if name not in places), None):
        raise WireError(f"{what} has weight {unknown}, which is not in the run's manifest")
    if twice := _first_repeated(names):
        raise WireError(f"{what} has weight {twice} twice")
    order = [places[name] for name in names]
    if order != sorted(order):
        raise WireError(f"{what}: weights are not in the manifest's order")
    return [run.weights[place] for place in order]


def _names(run: Agreed) -> list[str]:
    return [weight.name for weight in run.weights]


def _first_missing(wanted: Iterable[str], there: Iterable[str]) -> str | None:
    known = set(there)
    return next((name for name in wanted if name not in known), None)


def _first_repeated(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
