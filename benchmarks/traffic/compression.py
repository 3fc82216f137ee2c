"""Smaller messages and their cost in loss: uploads in bf16, int8 and int4, downloads as differences, against fp32.

    python -m benchmarks.traffic.compression --json compression.json --learning-rate 0.008

Fleets of benchmarks.simulation.federation under the default rule, otherwise as in benchmarks.merge_rules. Bytes are
those of encoded messages, of all boards and rounds; sketches travel in bf16 whatever the upload. The target: no more
than 0.28 (int8) and 0.16 (int4) of fp32's upload, with a loss within 1 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import msgspec

from benchmarks.simulation.fleet_options import add_fleet_options, fleet_of
from benchmarks.simulation.histories import QUICK, difference, fleets, mean_loss
from benchmarks.simulation.setting import History, Setting
from benchmarks.study.cli import command, study_parser
from benchmarks.study.tables import spread, table

SEEDS = (1, 2, 3)

RULE = "fedsvd"
"""The default rule."""

REFERENCE = Setting(rule=RULE, learning_rate=0, seed=0, upload="fp32")

VARIANTS: dict[str, Setting] = {
    "fp32": REFERENCE,
    "bf16": msgspec.structs.replace(REFERENCE, upload="bf16"),
    "int8": msgspec.structs.replace(REFERENCE, upload="int8"),
    "int8, without error feedback": msgspec.structs.replace(REFERENCE, upload="int8", feedback=False),
    "int4": msgspec.structs.replace(REFERENCE, upload="int4"),
    "int4, without error feedback": msgspec.structs.replace(REFERENCE, upload="int4", feedback=False),
    "int8, downloads as differences": msgspec.structs.replace(REFERENCE, upload="int8", differences=True),
    "int4, downloads as differences": msgspec.structs.replace(REFERENCE, upload="int4", differences=True),
}
"""Downloads are in fp32 where uploads are, else in bf16."""


def settings(variant: Setting, seeds: Sequence[int]) -> Iterator[Setting]:
    """The runs of a variant, one per seed."""
    for seed in seeds:
        yield msgspec.structs.replace(variant, seed=seed)


def row(name: str, histories: Sequence[History], reference: Sequence[History]) -> list[str]:
    """A variant's cells: bytes and loss, absolute and against the reference."""
    up, down = (fmean(of(history) for history in histories) for of in (_up, _down))
    base_up, base_down = (fmean(of(history) for history in reference) for of in (_up, _down))
    loss = fmean(map(mean_loss, reference))
    delta = difference(histories, reference, mean_loss)
    return [
        name,
        f"{up / 1e6:.1f}",
        f"{up / base_up:.3f}",
        f"{down / 1e6:.1f}",
        f"{down / base_down:.3f}",
        spread([mean_loss(history) for history in histories]).text(4),
        "" if histories is reference or delta is None else delta.text(4),
        "" if histories is reference or delta is None else f"{delta.spread.mean / loss:+.2%}",
    ]


def main() -> None:
    parser = study_parser(__doc__)
    parser.add_argument("--rule", default=RULE)
    parser.add_argument(
        "--learning-rate", type=float, required=True, help="the rule's, as benchmarks.merge_rules found it"
    )
    add_fleet_options(parser)
    options = parser.parse_args()
    changes = {"rule": options.rule, "learning_rate": options.learning_rate, **fleet_of(options)}
    changes |= QUICK if options.quick else {}
    seeds = SEEDS[:2] if options.quick else SEEDS
    wanted = {
        name: list(settings(msgspec.structs.replace(variant, **changes), seeds)) for name, variant in VARIANTS.items()
    }
    with fleets(options) as study:
        study.run(setting for variant in wanted.values() for setting in variant)
        runs = {name: study.known(variant) for name, variant in wanted.items()}
        ground = study.ground
    columns = ["uploads", "MB up", "of fp32", "MB down", "of fp32", "loss", "less fp32's", "part of it"]
    print(f"`{command('benchmarks.traffic.compression')}`, {ground}\n")
    print(table(columns, (row(name, histories, runs["fp32"]) for name, histories in runs.items())))


def _up(history: History) -> int:
    return history.last.up_bytes


def _down(history: History) -> int:
    return history.last.down_bytes


if __name__ == "__main__":
    main()
