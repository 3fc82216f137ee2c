"""Code with its summary line, for the task of saying what a function does."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

from builtin_base import docstrings
from builtin_base.training.text.documents import Pair

BODY_LINES = range(3, 40)
"""Lines of a function's body; shorter ones delegate, longer ones do not fit a source."""

MAX_CODE_CHARS, MAX_PACKAGE_PAIRS = 900, 1_200
"""Code kept of one function, in characters (about 300 tokens), and pairs kept of one package."""


def read_code(job: tuple[Path, str]) -> list[Pair]:
    """Read functions and their summary lines from a package or module, given as (folder that holds it, name)."""
    root, library = job
    base = root / library
    files = sorted(p for p in base.rglob("*.py") if not docstrings.is_skipped(p.relative_to(base)))
    pairs: list[Pair] = []
    for path in files if base.is_dir() else [root / f"{library}.py"]:
        pairs.extend(Pair("code:docstring", library, *pair) for pair in _functions(path))
        if len(pairs) >= MAX_PACKAGE_PAIRS:
            break
    return pairs[:MAX_PACKAGE_PAIRS]


def _functions(path: Path) -> Iterator[tuple[str, str]]:
    try:
        if path.stat().st_size > docstrings.MAX_FILE_BYTES // 4:
            return
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are not our user's business
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and len(node.body) > 1:
            raw = ast.get_docstring(node)
            body = lines[node.body[1].lineno - 1 : node.end_lineno]
            if not raw or len(body) not in BODY_LINES:
                continue
            summary, _ = docstrings.split_summary(raw)
            code = " ".join(" ".join(body).split())[:MAX_CODE_CHARS]
            arguments = ", ".join(arg.arg for arg in node.args.args)
            if len(summary.split()) in docstrings.SUMMARY_WORDS and code.isascii() and summary.isascii():
                yield f"code: def {node.name}({arguments}): {code}", summary
