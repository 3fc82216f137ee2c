"""Debian's package descriptions, and the texts that its packages install under ``/usr/share/doc``."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from builtin_base.training.text.documents import (
    MAX_DOCUMENT_CHARS,
    Document,
    Harvest,
    Pair,
    cut_at_paragraphs,
    described,
)

DOC = Path("/usr/share/doc")
MAX_TEXT_CHARS = 200_000
"""Text kept of one file, in characters: longer ones are change logs and tables."""

_APT_HELPER = "/usr/lib/apt/apt-helper"


def read_debian() -> Harvest:
    """Read the long descriptions of all Debian packages that apt knows, and the installed ones' from dpkg."""
    documents: list[Document] = []
    pairs: list[Pair] = []
    for stanza in _debian_index().split("\n\n"):
        match = re.search(r"^Description(?:-en)?: (.+)\n((?: .*\n?)+)", stanza, re.MULTILINE)
        name = re.match(r"Package: (\S+)", stanza)
        if not match or not name:
            continue
        body = re.sub(r"^ \.$", "", match[2], flags=re.MULTILINE)
        text = "\n".join(line[1:] for line in body.splitlines()).strip()
        documents.append(Document("debian", name[1], f"{name[1]}: {match[1]}\n{text}"[:MAX_DOCUMENT_CHARS]))
        pairs += described("debian", name[1], text, match[1])
    return Harvest(documents, pairs)


def _debian_index() -> str:
    lists = sorted(Path("/var/lib/apt/lists").glob("*Translation-en*"))
    parts = [Path("/var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")]
    for path in lists:
        done = subprocess.run([_APT_HELPER, "cat-file", str(path)], capture_output=True, check=False)
        parts.append(done.stdout.decode("utf-8", errors="replace"))
    return "\n\n".join(parts)


def read_texts() -> Iterator[Document]:
    """Read the plain texts under ``/usr/share/doc``."""
    for path in sorted(DOC.rglob("*")):
        if path.is_file() and re.match(r"(?i)(readme|.*\.(rst|txt|md)(\.gz)?$|faq|news)", path.name):
            raw = path.read_bytes()
            try:
                text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
            except (OSError, EOFError, UnicodeDecodeError):
                continue
            yield from (Document("doc", path.parent.name, piece) for piece in cut_at_paragraphs(text[:MAX_TEXT_CHARS]))
