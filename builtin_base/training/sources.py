"""Read the kinds of text that the builtin base learns from: packages, manual pages, Debian's descriptions, READMEs."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from builtin_base import docstrings

MAX_PACKAGE_CHARS = 4_000_000
"""Text kept of one package, in characters, so that one library of generated wrappers does not drown the rest."""

MAX_PACKAGE_PAIRS = 6_000
"""Pairs kept of one package, for the same reason."""

MAX_DOCUMENT_CHARS = 4_000
"""Longest piece of running text kept as one document, in characters (about 1,000 tokens)."""

_MAN = Path("/usr/share/man")
_DOC = Path("/usr/share/doc")
_APT_HELPER = "/usr/lib/apt/apt-helper"
_COMMENT = re.compile(r"(?:^[ \t]*#[ \t]+.*\n){4,}", re.MULTILINE)
_LICENCE = re.compile(r"copyright|licen[sc]e|warranty|redistribut", re.IGNORECASE)
_ROFF_ESCAPE = re.compile(r"\\(?:f\[[^]]*\]|f\(..|f.|s[-+]?\d+|[&:|^/,)%]|\*\(..|\*\[[^]]*\]|\*.|n\(..|m\[[^]]*\])")
_ROFF_CHARACTERS = {
    r"\-": "-",
    r"\(aq": "'",
    r"\(cq": "'",
    r"\(oq": "'",
    r"\(lq": '"',
    r"\(rq": '"',
    r"\(bu": "*",
    r"\(em": "-",
    r"\(en": "-",
    r"\(co": "(c)",
    r"\(dq": '"',
    r"\(ti": "~",
    r"\(ha": "^",
    r"\e": "\\",
    r"\ ": " ",
    r"\~": " ",
    r"\(mu": "x",
    r"\(+-": "+-",
    r"\(->": "->",
    r"\(ga": "`",
    r"\'": "'",
    r"\0": " ",
}
_MARKUP = re.compile(r"<[^>]{1,200}>|!\[[^]]*\]\([^)]*\)|^\.\. .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of running text, for span corruption. `origin` names the kind of source, `group` the source itself."""

    origin: str
    group: str
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A text and its summary line, for summary writing. Fields as in `Document` and `braid_common.example.Example`."""

    origin: str
    group: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Harvest:
    """Documents and pairs of one source."""

    documents: list[Document]
    pairs: list[Pair]


def strip_roff(source: str) -> str:
    """Reduce a manual page's roff source to its running text; headings become lines of their own."""
    lines: list[str] = []
    for line in source.splitlines():
        if line.startswith((".SH", ".Sh", ".SS", ".Ss")):
            heading = _unescape(line[3:]).strip(' "')
            lines.append(f"\n{heading}\n")
        elif line.startswith((".B", ".I", ".R", ".Nm", ".Nd", ".Fl", ".Ar", ".Xr", ".Op", ".Cm", ".Pa")):
            lines.append(_unescape(line.partition(" ")[2]).replace('"', ""))
        elif line.startswith((".PP", ".TP", ".P", ".LP", ".IP", ".Pp", ".sp", ".It")):
            lines.append("\n" + _unescape(line[3:].partition(" ")[2]).split(" ")[0].strip('"'))
        elif not line.startswith((".", "'")):
            lines.append(_unescape(line))
    text = re.sub(r"[ \t]+", " ", "\n".join(lines))
    return re.sub(r"\n\s*\n+", "\n\n", text).strip()


def _unescape(line: str) -> str:
    line = line.partition(r"\"")[0]
    for escape, character in _ROFF_CHARACTERS.items():
        line = line.replace(escape, character)
    return _ROFF_ESCAPE.sub("", line)


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


def manual_batches(size: int = 400) -> list[list[Path]]:
    """Name the English manual pages for programs, formats and administration, in batches for `read_manuals`."""
    pages = sorted(path for section in "1578" for path in (_MAN / f"man{section}").glob("*.gz"))
    # The Google Cloud SDK, where installed, brings 16,000 generated pages that repeat one another's options.
    pages = [path for path in pages if not path.name.startswith("gcloud")]
    return [pages[start : start + size] for start in range(0, len(pages), size)]


def read_manuals(paths: list[Path]) -> Harvest:
    """Read manual pages; a page's one-line description is the summary of its DESCRIPTION section."""
    documents: list[Document] = []
    pairs: list[Pair] = []
    for path in paths:
        name = path.name.split(".")[0]
        try:
            text = strip_roff(gzip.decompress(path.read_bytes()).decode("utf-8"))
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        documents.extend(Document("manual", name, piece) for piece in _pieces(text))
        summary = re.search(r"^NAME\n+.*? -+ (.+?)(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
        body = re.search(r"^DESCRIPTION\n+(.+?)(?=\n\n[A-Z ]{4,}\n|\Z)", text, re.MULTILINE | re.DOTALL)
        if summary and body:
            _add_pair(pairs, "manual", name, body[1], " ".join(summary[1].split()))
    return Harvest(documents, pairs)


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
        _add_pair(pairs, "debian", name[1], text, match[1])
    return Harvest(documents, pairs)


def _debian_index() -> str:
    lists = sorted(Path("/var/lib/apt/lists").glob("*Translation-en*"))
    parts = [Path("/var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")]
    for path in lists:
        done = subprocess.run([_APT_HELPER, "cat-file", str(path)], capture_output=True, check=False)
        parts.append(done.stdout.decode("utf-8", errors="replace"))
    return "\n\n".join(parts)


def _add_pair(pairs: list[Pair], origin: str, name: str, body: str, summary: str) -> None:
    docstring = docstrings.Docstring(name, name, f"{summary[:1].upper()}{summary[1:]}\n\n{body}")
    pair = docstrings.to_pair(docstring)
    if pair:
        pairs.append(Pair(origin, name, *pair))


def read_texts(sites: list[Path], excluded: Collection[str]) -> Harvest:
    """Read package descriptions in wheels' metadata and texts under ``/usr/share/doc``."""
    documents: list[Document] = []
    for site in sites:
        for path in sorted(site.glob("*.dist-info/METADATA")):
            name = path.parent.name.split("-")[0].lower()
            if name not in excluded:
                text = path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[2]
                documents.extend(Document("readme", name, p) for p in _pieces(_MARKUP.sub("", text)))
    for path in sorted(_DOC.rglob("*")):
        if path.is_file() and re.match(r"(?i)(readme|.*\.(rst|txt|md)(\.gz)?$|faq|news)", path.name):
            raw = path.read_bytes()
            try:
                text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
            except (OSError, EOFError, UnicodeDecodeError):
                continue
            documents.extend(Document("doc", path.parent.name, p) for p in _pieces(text[:200_000]))
    return Harvest(documents, [])


def _pieces(text: str) -> Iterator[str]:
    """Cut a long text at paragraphs into documents of at most `MAX_DOCUMENT_CHARS` characters."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text):
        if piece and len(piece) + len(paragraph) > MAX_DOCUMENT_CHARS // 2:
            yield piece
            piece = ""
        piece += f"{paragraph[:MAX_DOCUMENT_CHARS]}\n"
    yield piece
