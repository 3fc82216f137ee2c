"""Training examples from the docstrings of the Python packages that a board has installed.

Real text that nothing has to download: the body of a docstring is the source, its summary line the target. A library
is found without being imported and its files are parsed, never run. Only the standard library is used here.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from braid_common.example import Example

MAX_BODY_CHARS = 1200
"""Body text kept of one docstring, in characters: about 300 tokens, more than a board's usual source length."""

MIN_BODY_WORDS = 8
"""Bodies shorter than this, in words, say too little to write a summary from."""

SUMMARY_WORDS = range(4, 31)
"""Length of an acceptable summary line, in words."""

MAX_NON_ASCII_SHARE = 0.05
"""Share of non-ASCII characters above which a text is taken for tables, formulas or another language."""

MAX_FILE_BYTES = 2_000_000
"""Source files above this size, in bytes, are tables in Python's clothes; parsing one takes 100 times its size in
RAM."""

_SKIPPED_FOLDERS = frozenset(
    (
        *("tests", "test", "testing", "_test", "_tests", "testdata", "lib2to3", "idlelib", "node_modules"),
        *("_vendor", "vendor", "_vendored", "vendored", "third_party", "thirdparty", "externals", "extern", "_extern"),
        *("generated", "_generated", "__pycache__", "site-packages"),
    )
)
_SKIPPED_FILE = re.compile(r"(test_.*|.*_test|conftest|.*_pb2|.*_pb2_grpc|.*_generated)\.py")
_SIGNATURE = re.compile(r"[\w.]+\s*\([^\n]*\)\s*(->\s*.*)?|[\w.]+\s*\(.*\)\s*(->\s*[\w\[\], .]+)?", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<![ .(][A-Za-z])(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)[.!?](?=\s+[A-Z`*\"'(:])")
_ROLE = re.compile(r":[\w:+-]+:`~?([^`]*)`")
_LINK = re.compile(r"`([^`<]*?)\s*<[^`>]*>`_{0,2}")
_NOT_PROSE = re.compile(r"^(:|>>>|\.\. |@|#|\||\+-|\$|<)")
_RULER = re.compile(r"\s*([=\-~^*#+_.`])\1{2,}[=\-~^*#+_.` ]*")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring as it stands in the source.

    Attributes:
        qualname: dotted name inside the module, ``""`` for the module itself.
        signature: the line shown to the model, e.g. ``JSONDecoder.decode(self, s, _w)``.
        text: the docstring, its indentation removed.
    """

    qualname: str
    signature: str
    text: str


def extract(library: str, *, root: Path | None = None) -> list[Example]:
    """Read the examples of one installed library, in the order of its files, without importing it.

    Args:
        library: import name of a top-level package or module.
        root: folder that holds the package; where None, the interpreter's own search decides.

    Returns:
        Examples that differ in target and in source, the first of equals kept; the order is the same on every machine.

    Raises:
        LookupError: if there is no such library here or none of its source can be read; the message names others.
    """
    base, files = _source_files(library, root)
    examples: list[Example] = []
    seen_sources: set[str] = set()
    seen_targets: set[str] = set()
    for path in files:
        module = _module_name(library, base, path)
        for docstring in read_docstrings(path):
            pair = to_pair(docstring)
            if pair is None or pair[0] in seen_sources or pair[1] in seen_targets:
                continue
            seen_sources.add(pair[0])
            seen_targets.add(pair[1])
            examples.append(Example(f"{module}:{docstring.qualname}", library, pair[0], pair[1]))
    return examples


def installed_libraries() -> list[str]:
    """List the top-level packages that can be imported here and whose source can be read, sorted."""
    return sorted(_installed_packages())


def split(examples: Iterable[Example], *, held_out_share: float = 0.1) -> tuple[list[Example], list[Example]]:
    """Divide examples into a training and a held-out part by a hash of their text.

    The side depends on nothing but source and target, so it is the same on every board and in every run, and a text
    that two libraries share is never trained on in one place and tested on in another.

    Args:
        examples: what to divide; the order is kept.
        held_out_share: expected share of the held-out part, 0..1.

    Returns:
        (train, held_out).
    """
    train: list[Example] = []
    held_out: list[Example] = []
    for example in examples:
        side = held_out if hash_share(f"{example.source}\0{example.target}") < held_out_share else train
        side.append(example)
    return train, held_out


def hash_share(text: str) -> float:
    """Map a text to a number in [0, 1) that is the same on every machine and uniform over texts."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def read_docstrings(path: Path) -> Iterator[Docstring]:
    """Yield the docstrings of one source file, top to bottom; nothing for a file that does not parse."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not our user's business
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from _walk(tree, "", path.stem if path.stem != "__init__" else path.parent.name)


def to_pair(docstring: Docstring) -> tuple[str, str] | None:
    """Turn a docstring into (source, target), or None where it holds no summary or too little besides it."""
    summary, body = split_summary(docstring.text)
    if len(_WORD.findall(summary)) not in SUMMARY_WORDS or len(_WORD.findall(body)) < MIN_BODY_WORDS:
        return None
    body = _cut(body, MAX_BODY_CHARS)
    if summary.rstrip(".").lower() in body.lower():
        return None  # a body that repeats its summary teaches copying
    if _non_ascii_share(summary + body) > MAX_NON_ASCII_SHARE:
        return None
    return f"{docstring.signature}\n{body}", summary


def split_summary(text: str) -> tuple[str, str]:
    """Split a docstring into its summary sentence and the rest.

    Args:
        text: a docstring without indentation.

    Returns:
        (summary, body), both on one line with markup of roles and literals removed; summary is ``""`` where the
        docstring opens with something that is not prose.
    """
    paragraphs = re.split(r"\n\s*\n", _without_rulers(text).strip())
    while len(paragraphs) > 1 and _SIGNATURE.fullmatch(paragraphs[0].strip()):
        paragraphs.pop(0)  # C functions open with their signature
    if _NOT_PROSE.match(paragraphs[0].strip()):
        return "", _plain(text)
    lines = [line.strip() for line in paragraphs[0].splitlines()]
    n_summary = next((i for i, line in enumerate(lines) if i and _NOT_PROSE.match(line)), None)
    first = _plain(" ".join(lines[:n_summary]))
    rest = "" if n_summary is None else " ".join(lines[n_summary:])
    end = _SENTENCE_END.search(first)
    if end:
        first, rest = first[: end.end()], f"{first[end.end() :]} {rest}"
    return first.strip(), _plain(f"{rest} " + " ".join(paragraphs[1:]))


def is_skipped(relative: Path) -> bool:
    """Tell whether a file, given relative to its package, is a test, a vendored copy or generated."""
    return not _SKIPPED_FOLDERS.isdisjoint(relative.parts[:-1]) or bool(_SKIPPED_FILE.fullmatch(relative.name))


def _walk(node: ast.AST, prefix: str, module: str) -> Iterator[Docstring]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        raw = ast.get_docstring(node, clean=False)
        if raw:
            yield Docstring(prefix, _signature(node, prefix or module), inspect.cleandoc(raw))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk(child, f"{prefix}.{child.name}" if prefix else child.name, module)
        elif isinstance(child, (ast.If, ast.Try, ast.With)):
            yield from _walk(child, prefix, module)


def _signature(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, ast.FunctionDef) and child.name == "__init__":
                return f"{name}({_arguments(child.args)})"
        return f"{name}()"
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"{name}({_arguments(node.args)})"
    return name


def _arguments(args: ast.arguments) -> str:
    names = [a.arg for a in (*args.posonlyargs, *args.args)]
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    if args.vararg:
        names.append(f"*{args.vararg.arg}")
    names.extend(a.arg for a in args.kwonlyargs)
    if args.kwarg:
        names.append(f"**{args.kwarg.arg}")
    return ", ".join(names)


def _without_rulers(text: str) -> str:
    """Drop the lines that underline headings, and set the headings apart as paragraphs of their own."""
    kept: list[str] = []
    for line in text.splitlines():
        if not _RULER.fullmatch(line):
            kept.append(line)
        elif len(kept) > 1 and kept[-1].strip():
            kept[-1:] = ["", kept[-1], ""]
    return "\n".join(kept)


def _plain(text: str) -> str:
    text = _LINK.sub(r"\1", _ROLE.sub(r"\1", text))
    return " ".join(text.replace("``", "").replace("`", "").split())


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return text
    return text[: max_chars + 1].rsplit(" ", 1)[0][:max_chars]


def _non_ascii_share(text: str) -> float:
    return sum(not c.isascii() for c in text) / max(len(text), 1)


def _source_files(library: str, root: Path | None) -> tuple[Path, list[Path]]:
    """Find a library's folder (or the folder of its one file) and its source files, sorted by path."""
    base = _find(library, root)
    if base is None:
        known = _installed_packages() if root is None else _packages_in(root)
        rich = ", ".join(_largest(known, 8)) or "none"
        raise LookupError(
            f"no library named {library!r} with Python source is installed here; "
            f"choose an installed one (the largest: {rich}) or install it first"
        )
    if base.is_file():
        return base.parent, [base]
    files = [path for path in base.rglob("*.py") if not is_skipped(path.relative_to(base))]
    return base, sorted(files, key=lambda path: path.relative_to(base).as_posix())


def _find(library: str, root: Path | None) -> Path | None:
    if not library.isidentifier():
        return None
    if root is not None:
        folder, file = root / library, root / f"{library}.py"
        return folder if (folder / "__init__.py").is_file() else file if file.is_file() else None
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def _module_name(library: str, base: Path, path: Path) -> str:
    parts = path.relative_to(base).with_suffix("").parts
    if path.parent == base and path.stem == library and not (base / "__init__.py").is_file():
        return library  # a library of a single file
    return ".".join((library, *(part for part in parts if part != "__init__")))


def _installed_packages() -> dict[str, Path]:
    packages: dict[str, Path] = {}
    for entry in sys.path:
        for name, folder in _packages_in(Path(entry or ".")).items():
            packages.setdefault(name, folder)
    return packages


def _packages_in(folder: Path) -> dict[str, Path]:
    try:
        children = list(folder.iterdir())
    except OSError:
        return {}
    return {
        child.name: child
        for child in children
        if child.name.isidentifier()
        and not child.name.startswith("_")
        and child.name not in _SKIPPED_FOLDERS
        and (child / "__init__.py").is_file()
    }


def _largest(packages: dict[str, Path], n: int) -> list[str]:
    sizes = {name: sum(p.stat().st_size for p in folder.rglob("*.py")) for name, folder in packages.items()}
    return sorted(sizes, key=lambda name: (-sizes[name], name))[:n]
