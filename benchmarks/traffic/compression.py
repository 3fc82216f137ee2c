"""What smaller messages cost: uploads in bf16, int8 and int4, and downloads as differences, against fp32 and whole.

    python -m benchmarks.traffic.compression --json compression.json --learning-rate 0.008

Fleets of benchmarks.simulation.federation under the default rule, otherwise as in benchmarks.merge_rules. Bytes are
those of encoded messages, of all boards and rounds; sketches travel in bf16 whatever the upload. The target: no more
than 0.28 (int8) and 0.16 (int4) of fp32's upload, with a loss within 1 %."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from statistics import fmean

import msgspec

from benchmarks.simulation.setting import History, Setting
from benchmarks.study.cli import add_options, begin, command
from benchmarks.study.tables import difference, mean_loss, spread, table

SEEDS = (1, 2, 3)

REFERENCE = Setting(rule="weave", learning_rate=0, seed=0, upload="fp32")

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


def settings(variant: Setting, rule: str, learning_rate: float) -> Iterator[Setting]:
    for seed in SEEDS:
        yield msgspec.structs.replace(variant, rule=rule, learning_rate=learning_rate, seed=seed)


def row(name: str, histories: Sequence[History], reference: Sequence[History]) -> list[str]:
    """Bytes and loss, absolute and against the reference."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rule", default="weave")
    parser.add_argument(
        "--learning-rate", type=float, required=True, help="the rule's, as benchmarks.merge_rules found it"
    )
    options = parser.parse_args()
    runs = begin(options)
    wanted = {name: list(settings(one, options.rule, options.learning_rate)) for name, one in VARIANTS.items()}
    runs.run(setting for one in wanted.values() for setting in one)
    found = {name: runs.known(one) for name, one in wanted.items()}
    columns = ["uploads", "MB up", "of fp32", "MB down", "of fp32", "loss", "less fp32's", "part of it"]
    print(f"`{command('benchmarks.traffic.compression')}`, {runs.machine}\n")
    print(table(columns, (row(name, histories, found["fp32"]) for name, histories in found.items())))


def _up(history: History) -> int:
    return history.last.up_bytes


def _down(history: History) -> int:
    return history.last.down_bytes


if __name__ == "__main__":
    main()
