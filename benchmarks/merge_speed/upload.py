"""Processor time that one upload costs the server, from the bytes on its disk to the sums of its round.

    python -m benchmarks.merge_speed.upload                    # the builtin base, rule weave, uploads in int8 and bf16
    python -m benchmarks.merge_speed.upload --formats bf16 --uploads 100

Everything runs in this process, with the server's own parts on a folder of its own: the digest of the file, two rows in
the database, decoding and screening. Boards have ranks 7 and 12 in turn on every weight of scope "all", and train both
factors of the leading strands of a global adapter of rank 16. Time is `time.process_time`, of all threads, and a
median; a round's first upload is not timed, for it pays for what the others share. Summing happens when the round
closes; what it takes for each upload is listed beside it as a mean: reading the file again, and adding and multiplying
out, but not the step to the next version. Reading the request from a socket is not part of either.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aggregator.downloads.versions import Versions
from aggregator.merge.in_groups import groups_of
from aggregator.merge.rules import folded
from aggregator.merge.state import F32, AdapterState, WeightState
from aggregator.run.commit import Arrival, Committer
from aggregator.run.intake.judging import Judge
from aggregator.run.intake.round_sums import RoundSums
from aggregator.run.intake.sent_versions import SentVersions
from aggregator.run.open_round import begin_round
from aggregator.run.round_spec import round_spec
from aggregator.run.setup import create, terms_of
from aggregator.settings.config import RunConfig
from aggregator.settings.terms import Terms
from aggregator.store.blobs import Blobs
from aggregator.store.slices import Cuts
from aggregator.store.storage import Storage
from aggregator.store.store import Store
from aggregator.store.uploads import Uploads
from edge_client.host.machine import describe_machine
from wire.codec import encode
from wire.fields import Dtype
from wire.limits import PROTOCOL_VERSION
from wire.messages import Tensor, Update, UpdatePart
from wire.run import Weight
from wire.tensors import pack, unpack

RANKS = (7, 12)
"""Ranks of the boards, in turn."""

SERVER_RANK = 16
"""Rank of the global adapter, and the largest of a board."""

STEP = 1e-3
"""Standard deviation of what a board adds to each value: less than a round's training at the default rate."""


def main() -> None:
    options = _options()
    print(f"{describe_machine('numpy')}\n")
    print("| uploads | bytes | runs | CPU ms to judge one | and to sum it later |\n| --- | ---: | ---: | ---: | ---: |")
    for upload in options.formats:
        costs, sum_s = measure(upload, options.uploads)
        judge_s = statistics.median(cost.judge_s for cost in costs)
        n_bytes = statistics.mean(cost.n_bytes for cost in costs)
        print(f"| {upload} | {n_bytes:,.0f} | {len(costs)} | {judge_s * 1e3:.1f} | {sum_s * 1e3:.1f} |", flush=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """One upload: its size, and seconds of processor time to keep and judge it."""

    n_bytes: int
    judge_s: float


def measure(upload: Dtype, n_uploads: int) -> tuple[list[Cost], float]:
    """The cost of each upload of a round but the first, and the mean seconds to sum one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        settings = {"train.scope": "all", "train.upload": upload, "rounds.min_devices": n_uploads + 1}
        config = create(root / "server", "builtin", {**settings, "merge.server_rank": SERVER_RANK}, force=False)
        store = Store(root / "braid.db")
        terms = terms_of(config, store)
        storage = Storage(store, Blobs(root / "blobs"), Uploads(root / "uploads"), Cuts(root / "cuts"))
        try:
            return _measured(config, terms, storage, n_uploads)
        finally:
            store.close()


def _measured(config: RunConfig, terms: Terms, storage: Storage, n_uploads: int) -> tuple[list[Cost], float]:
    state = _random_state(terms)
    storage.records.open_round(1, state.version)
    sent = SentVersions(terms, Versions(storage.records, storage.blobs))
    committer, judge = Committer(config, storage), Judge(terms, storage, sent)
    open_round = begin_round(config, terms, round_spec(config, 1, state.version, ""), 0.0)
    costs = []
    for number in range(n_uploads + 1):
        device = storage.records.enrol(f"{number:032x}", f"board {number}", f"{number:064x}").device
        data = encode(_update(terms, state, RANKS[number % len(RANKS)], number))
        part = storage.uploads.take(device, 1, hashlib.sha256(data).hexdigest(), 0)
        part.append(data)
        begun_s = time.process_time()
        (received,) = committer.receive([Arrival(device, 1, part.finish(), part)])
        answer, verdict = judge.judge(received, open_round.spec, open_round, state)
        costs.append(Cost(len(data), time.process_time() - begun_s))
        assert answer.accepted, answer.reason
        open_round = open_round.with_answer(answer, verdict.sizes, 0.0)
    begun_s = time.process_time()
    sums = RoundSums(config, terms, storage.blobs, sent)
    for names in groups_of(state):
        folded(terms.rule, sums.contributions(open_round, state, names))
    return costs[1:], (time.process_time() - begun_s) / len(costs)


def _random_state(terms: Terms) -> AdapterState:
    """Version 1, whose global adapter has random factors of the server's rank, and whose bases are random."""
    rng = np.random.default_rng(1)
    return AdapterState(version=1, weights={weight.name: _random_weight(weight, rng) for weight in terms.weights})


def _random_weight(weight: Weight, rng: np.random.Generator) -> WeightState:
    rank = min(SERVER_RANK, weight.rows, weight.columns)
    rows = np.linalg.qr(rng.standard_normal((weight.columns, rank)))[0].T.astype(np.float32)
    columns = 0.1 * np.linalg.qr(rng.standard_normal((weight.rows, rank)))[0].astype(np.float32)
    return WeightState(frozen_b=columns, frozen_a=rows, basis=rows, values=np.arange(rank, 0, -1.0))


def _update(terms: Terms, state: AdapterState, rank: int, seed: int) -> Update:
    """The update of a board that trained both factors of the strands that it was sent."""
    rng = np.random.default_rng([2, seed])
    upload = terms.upload

    def moved(tensor: Tensor | None) -> Tensor:
        assert tensor is not None
        values: F32 = unpack(tensor)
        return pack(values + rng.standard_normal(values.shape) * STEP, upload)

    parts = terms.rule.cut(state, [min(rank, len(w.basis)) for w in state.weights.values()], terms.download)
    return Update(
        protocol=PROTOCOL_VERSION,
        run_id=terms.run_id,
        round=1,
        version=state.version,
        manifest=terms.manifest,
        n_examples=100,
        parts=tuple(UpdatePart(name=part.name, b=moved(part.start_b), a=moved(part.basis)) for part in parts),
    )


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.merge_speed.upload", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--formats", nargs="+", default=["int8", "bf16"], choices=["fp32", "bf16", "int8", "int4"])
    parser.add_argument("--uploads", type=int, default=24, help="how many are timed for each format")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
