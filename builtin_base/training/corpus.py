"""Gather the text that the builtin base is trained on, from what a Debian machine with Python already holds.

Sources: docstrings and comment blocks of the standard library and of packages in the given ``site`` folders, package
READMEs, Debian package descriptions, English manual pages, and texts under ``/usr/share/doc``. Nothing is downloaded
here. The libraries that the demo's boards learn from are left out, and so is every text equal to one of theirs.

Run as ``python -m builtin_base.training.corpus --out DIR --site SITE_PACKAGES [--excluded-site SITE_PACKAGES]``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from builtin_base import docstrings
from builtin_base.training.sources import (
    Document,
    Harvest,
    Pair,
    manual_batches,
    read_debian,
    read_manuals,
    read_package,
    read_texts,
)

EXCLUDED = frozenset(
    (
        *("torch", "transformers", "numpy", "sympy", "networkx", "peft", "accelerate", "sqlalchemy"),
        *("bitsandbytes", "aiohttp", "huggingface_hub", "safetensors", "tokenizers"),
    )
)
"""Import names left out of the corpus: the demo gives each board one of these to learn from and to be tested on, and a
base that has read the test answers would make every adapter look useless."""

MAX_SAME_TARGET = 3
"""How often one target may occur in the corpus; "Return the name of this object." must not become the answer to all."""

MIN_DOCUMENT_CHARS = 80
"""Shorter pieces hold too little context to restore a span from, in characters."""


def gather(sites: list[Path], excluded_sites: list[Path], n_workers: int = 2) -> tuple[Harvest, dict[str, object]]:
    """Collect, filter and deduplicate the whole corpus.

    Args:
        sites: folders that hold Python packages, beside the standard library.
        excluded_sites: folders where installed copies of the `EXCLUDED` libraries may lie, whose texts are dropped.
        n_workers: processes that parse in parallel.

    Returns:
        (corpus, report); the report counts documents, pairs and bytes by origin and names the packages.
    """
    with multiprocessing.Pool(n_workers) as pool:
        packages = _packages(sites)
        harvests = pool.imap(read_package, packages, chunksize=1)
        manuals = pool.imap(read_manuals, manual_batches(), chunksize=1)
        refused = _excluded_texts([*sites, *excluded_sites])
        texts = [read_debian(), read_texts(sites, EXCLUDED)]
        corpus = _merge(itertools.chain(harvests, manuals, texts), refused)
    report: dict[str, object] = {
        "documents": dict(Counter(document.origin for document in corpus.documents)),
        "document_bytes": dict(_bytes_by_origin((d.origin, d.text) for d in corpus.documents)),
        "pairs": dict(Counter(pair.origin for pair in corpus.pairs)),
        "pair_bytes": dict(_bytes_by_origin((p.origin, p.source + p.target) for p in corpus.pairs)),
        "packages": sorted({pair.group for pair in corpus.pairs if pair.origin == "docstring"}),
        "excluded_libraries": sorted(EXCLUDED),
        "excluded_texts": len(refused),
    }
    return corpus, report


def write(folder: Path, corpus: Harvest, report: dict[str, object]) -> None:
    """Write ``documents.jsonl``, ``pairs.jsonl`` and ``corpus.json`` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("documents", corpus.documents), ("pairs", corpus.pairs)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
    (folder / "corpus.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Harvest:
    """Read what `write` wrote."""
    with (folder / "documents.jsonl").open(encoding="utf-8") as file:
        documents = [Document(**json.loads(line)) for line in file]
    with (folder / "pairs.jsonl").open(encoding="utf-8") as file:
        pairs = [Pair(**json.loads(line)) for line in file]
    return Harvest(documents, pairs)


def _packages(sites: list[Path]) -> list[tuple[Path, str]]:
    """Name (root, package) of everything to read: the standard library as one, then each site's packages."""
    found: dict[str, Path] = {}
    standard = Path(sysconfig.get_paths()["stdlib"])
    for site in (standard, *sites):
        for child in sorted(site.iterdir()):
            if child.name.isidentifier() and child.is_dir() and child.name not in EXCLUDED:
                found.setdefault(child.name, site)
            elif child.suffix == ".py" and child.stem.isidentifier() and site == standard:
                found.setdefault(child.stem, site)
    return [(root, name) for name, root in sorted(found.items())]


def _excluded_texts(sites: Iterable[Path]) -> set[int]:
    """Hash the summaries and bodies of every example that an installed `EXCLUDED` library yields."""
    texts: set[int] = set()
    for library, site in itertools.product(sorted(EXCLUDED), dict.fromkeys(sites)):
        if (site / library).is_dir():
            for example in docstrings.extract(library, root=site):
                texts.add(_key(example.target))
                texts.add(_key(example.source.partition("\n")[2]))
    return texts


def _key(text: str) -> int:
    return hash(" ".join(text.split()).rstrip(".").lower())


def _merge(harvests: Iterable[Harvest], refused: set[int]) -> Harvest:
    documents: list[Document] = []
    pairs: list[Pair] = []
    seen_paragraphs: set[int] = set()
    seen_bodies: set[int] = set()
    n_targets: Counter[int] = Counter()
    for harvest in harvests:
        for document in harvest.documents:
            kept = _unseen_paragraphs(document.text, seen_paragraphs)
            if len(kept) >= MIN_DOCUMENT_CHARS and _ascii_share(kept) > 0.95 and _clean(kept, refused):
                documents.append(Document(document.origin, document.group, kept))
        for pair in harvest.pairs:
            body, target = _key(pair.source.partition("\n")[2]), _key(pair.target)
            if body in seen_bodies or body in refused or target in refused or n_targets[target] >= MAX_SAME_TARGET:
                continue
            seen_bodies.add(body)
            n_targets[target] += 1
            pairs.append(pair)
    return Harvest(documents, pairs)


def _unseen_paragraphs(text: str, seen: set[int]) -> str:
    """Drop the long paragraphs that an earlier document had, e.g. parameter lists shared by a family of functions."""
    kept = []
    for paragraph in re.split(r"\n\s*\n", text):
        key = hash(paragraph)
        if len(paragraph) < 60 or key not in seen:
            kept.append(paragraph)
            seen.add(key)
    return "\n\n".join(kept)


def _clean(text: str, refused: set[int]) -> bool:
    """Tell whether a document shares neither summary line nor body with an excluded library's example."""
    signature, _, docstring = text.partition("\n")
    summary, body = docstrings.split_summary(docstring or signature)
    return _key(summary) not in refused and _key(body[: docstrings.MAX_BODY_CHARS]) not in refused


def _ascii_share(text: str) -> float:
    return sum(c.isascii() for c in text) / max(len(text), 1)


def _bytes_by_origin(rows: Iterable[tuple[str, str]]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for origin, text in rows:
        sizes[origin] += len(text.encode("utf-8", "replace"))
    return sizes


def main(argv: list[str] | None = None) -> int:
    """Gather the corpus and write it to a folder."""
    parser = argparse.ArgumentParser(prog="python -m builtin_base.training.corpus", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for documents.jsonl, pairs.jsonl, corpus.json")
    parser.add_argument("--site", type=Path, action="append", default=[], help="folder of packages to read; repeatable")
    parser.add_argument("--excluded-site", type=Path, action="append", default=[], help="where excluded libraries lie")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args(argv)
    corpus, report = gather(args.site, args.excluded_site or [Path(sysconfig.get_paths()["purelib"])], args.workers)
    write(args.out, corpus, report)
    print(json.dumps({key: value for key, value in report.items() if key != "packages"}), file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
