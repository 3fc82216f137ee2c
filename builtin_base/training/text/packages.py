"""Python packages: their docstrings, comment blocks and descriptions."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from builtin_base import docstrings
from builtin_base.training.text.documents import MAX_DOCUMENT_CHARS, Document, Harvest, Pair, cut_at_paragraphs

EXCLUDED = frozenset(
    (
        *("torch", "transformers", "numpy", "sympy", "networkx", "peft", "accelerate", "sqlalchemy"),
        *("bitsandbytes", "aiohttp", "huggingface_hub", "safetensors", "tokenizers"),
    )
)
"""Import names left out of the corpus: the demo and the bar learn from them and test on them, and a base that has read
the test answers would make every adapter look useless."""

MAX_PACKAGE_CHARS = 4_000_000
"""Text kept of one package, in characters, so that one library of generated wrappers does not drown the rest."""

MAX_PACKAGE_PAIRS = 6_000
"""Pairs kept of one package, for the same reason."""

_COMMENT = re.compile(r"(?:^[ \t]*#[ \t]+.*\n){4,}", re.MULTILINE)
_LICENCE = re.compile(r"copyright|licen[sc]e|warranty|redistribut", re.IGNORECASE)
_MARKUP = re.compile(r"<[^>]{1,200}>|!\[[^]]*\]\([^)]*\)|^\.\. .*$", re.MULTILINE)


def read_package(job: tuple[Path, str]) -> Harvest:
    """Read the docstrings and comment blocks of one package or module, given as (folder that holds it, name)."""
    root, library = job
    base = root / library
    files = [p for p in base.rglob("*.py") if not docstrings.is_skipped(p.relative_to(base))]
    files = sorted(files) if base.is_dir() else [root / f"{library}.py"]
    documents: list[Document] = []
    pairs: list[Pair] = []
    n_chars = 0
    for path in files:
        for docstring in docstrings.read_docstrings(path):
            pair = docstrings.to_pair(docstring)
            if pair and len(pairs) < MAX_PACKAGE_PAIRS:
                pairs.append(Pair("docstring", library, *pair))
            text = f"{docstring.signature}\n{docstring.text}"[:MAX_DOCUMENT_CHARS]
            documents.append(Document("docstring", library, text))
            n_chars += len(text)
        documents.extend(Document("comment", library, text) for text in _comments(path))
        if n_chars > MAX_PACKAGE_CHARS:
            break
    return Harvest(documents, pairs)


def _comments(path: Path) -> Iterator[str]:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if len(source) > docstrings.MAX_FILE_BYTES:
        return
    for match in _COMMENT.finditer(source):
        text = "\n".join(line.strip().lstrip("#").strip() for line in match.group().splitlines())
        if not _LICENCE.search(text):
            yield text[:MAX_DOCUMENT_CHARS]


def read_readmes(sites: Sequence[Path]) -> Iterator[Document]:
    """Read the package descriptions in wheels' metadata."""
    for path in sorted(path for site in sites for path in site.glob("*.dist-info/METADATA")):
        name = path.parent.name.split("-")[0].lower()
        if name not in EXCLUDED:
            text = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]
            yield from (Document("readme", name, piece) for piece in cut_at_paragraphs(_MARKUP.sub("", text)))


def packages_of(sites: Sequence[Path]) -> list[tuple[Path, str]]:
    """Name (folder, package) of everything to read: the standard library's modules, then each site's packages."""
    found: dict[str, Path] = {}
    standard = Path(sysconfig.get_paths()["stdlib"])
    for site in (standard, *sites):
        for child in sorted(site.iterdir()):
            if child.name.isidentifier() and child.is_dir() and child.name not in EXCLUDED:
                found.setdefault(child.name, site)
            elif child.suffix == ".py" and child.stem.isidentifier() and site == standard:
                found.setdefault(child.stem, site)
    return [(root, name) for name, root in sorted(found.items())]
