"""The model card, written from a run's files: what a base is, what it was trained on, and what the bar measured."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builtin_base.training import packing
from builtin_base.training.decay import read_start
from builtin_base.training.export import CARD
from builtin_base.training.mixture import STABLE
from builtin_base.training.programmatic.exercises import EXERCISES
from builtin_base.training.state import CHECKPOINT, read_checkpoint
from builtin_base.training.text.documents import REPORT
from builtin_base.training.text.tokenised import MAX_SOURCE, MAX_TARGET

KINDS = {
    "docstring": "docstrings of {n_packages:,} Python packages and standard-library modules",
    "comment": "comment blocks of the same files",
    "debian": "Debian package descriptions",
    "manual": "English manual pages",
    "readme": "descriptions in packages' metadata",
    "doc": "plain texts under /usr/share/doc",
    "page": "documentation pages, HTML and info",
    "conversation": "training parts of published sets",
}
"""Kinds of documents, as people call them."""

SETS = {
    "mtsdialog": "MTS-Dialog (CC BY 4.0)",
    "scitldr": "SciTLDR (Apache 2.0)",
    "dolly": "databricks-dolly-15k (CC BY-SA 3.0)",
    "qmsum-specific": "QMSum (MIT)",
}
"""Published sets by the names of their files, with their licences."""


def write_card(branch: Path, table: str, note: str = "") -> Path:
    """Write the card of a decayed branch beside its packed weights.

    Args:
        branch: folder of the branch.
        table: what `python -m benchmarks.bar` printed of the packed weights.
        note: a sentence about this run: where it began, the machine.

    Returns:
        The card.

    Raises:
        FileNotFoundError: where the branch has no checkpoint.
    """
    content = read_checkpoint(branch)
    if content is None:
        raise FileNotFoundError(f"{branch / CHECKPOINT} is not there: make a branch with decay first")
    report = json.loads((branch / REPORT).read_text(encoding="utf-8"))
    path = branch / "export" / "packed" / CARD
    path.write_text(card(content, report, read_start(branch)["decay_tokens"], table, note), encoding="utf-8")
    return path


def card(
    checkpoint: Mapping[str, Any], report: Mapping[str, Any], decay_tokens: int, table: str, note: str = ""
) -> str:
    """Write the card's text from a checkpoint, the corpus's report and the bar's table."""
    config = checkpoint["config"]
    n_values = sum(value.numel() for name, value in checkpoint["model"].items() if name not in packing.REPEATED)
    template = (Path(__file__).resolve().parent / "card.md").read_text(encoding="utf-8")
    names = [SETS.get(name, name) for name in _published(report)]
    return template.format(
        n_values=f"{n_values / 1e6:.1f} million",
        architecture=(
            f"d_model {config['d_model']}, {config['num_heads']} heads of {config['d_kv']}, d_ff {config['d_ff']}, "
            f"{config['num_layers']} + {config['num_decoder_layers']} layers, {config['vocab_size']:,} pieces"
        ),
        steps=f"{checkpoint['step']:,}",
        tokens=f"{checkpoint['n_tokens'] / 1e6:.1f} million",
        decay_tokens=f"{decay_tokens / 1e6:.1f} million",
        tasks=", ".join(name.replace("_", " ") for name in STABLE.tasks),
        exercises=", ".join(name.replace("_", " ") for name in EXERCISES),
        max_source=MAX_SOURCE,
        max_target=MAX_TARGET,
        corpus=_corpus_table(report),
        pairs=_other_pairs(report),
        examples=f"Training parts of published sets are among it: {', '.join(names)}." if names else "",
        excluded=", ".join(f"`{name}`" for name in report["excluded_libraries"]),
        scores=table,
        note=note,
        date=time.strftime("%Y-%m-%d"),
    )


def _corpus_table(report: Mapping[str, Any]) -> str:
    sizes = Counter(report["document_bytes"]).most_common()
    return "\n".join(
        f"| {KINDS[kind].format(n_packages=len(report['packages']))} | {report['documents'][kind]:,} "
        f"| {size / 1e6:.1f} MB | {report['pairs'].get(kind, 0):,} |"
        for kind, size in sizes
    )


def _published(report: Mapping[str, Any]) -> list[str]:
    """Name the published sets whose training parts joined the corpus."""
    tasks = (origin.partition(":") for origin in report["pairs"])
    return sorted(name for task, _, name in tasks if task == "answer")


def _other_pairs(report: Mapping[str, Any]) -> str:
    counts: Counter[str] = Counter()
    for origin, n_pairs in report["pairs"].items():
        task, colon, _ = origin.partition(":")
        counts[task] += n_pairs if colon else 0
    return ", ".join(f"{task.replace('_', ' ')} {n_pairs:,}" for task, n_pairs in counts.most_common() if n_pairs)
