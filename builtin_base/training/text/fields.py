"""The parts of a docstring: what it says of each parameter, of what is returned and of what is raised."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_GOOGLE = re.compile(r"^(Args|Arguments|Parameters|Params|Returns?|Yields?|Raises)\s*:\s*$")
_NUMPY = re.compile(r"^(Parameters|Other Parameters|Returns|Yields|Raises)\s*$")
_RULER = re.compile(r"^-{3,}\s*$")
_SPHINX = re.compile(r"^:(param|parameter|arg|returns?|return|raises?|raise)\s*([^:]*):\s*(.*)$")
_GOOGLE_ITEM = re.compile(r"^(\*{0,2}[\w.]+)\s*(\([^)]*\))?\s*:\s*(.*)$")
_NUMPY_ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:\s*,\s*\*{0,2}[\w.]+)*)\s*(?::.*)?$")


@dataclass(slots=True)
class Fields:
    """A docstring's fields: `parameters` and `raises` by name, `returns` as one text; on one line each."""

    parameters: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Fields:
    """Read the fields of a docstring in the style of Google, of numpy, or of Sphinx; what is not understood is left."""
    lines = text.splitlines()
    found = Fields()
    at = 0
    while at < len(lines):
        line = lines[at].strip()
        if match := _SPHINX.match(line):
            at, text_of = _continued(lines, at, match[3])
            _keep(found, match[1], match[2].split()[-1] if match[2].split() else "", text_of)
        elif match := _GOOGLE.match(line):
            block, at = _block(lines, at + 1, _indent(lines[at]))
            _items(found, match[1], block, _GOOGLE_ITEM, 3)
        elif (match := _NUMPY.match(line)) and at + 1 < len(lines) and _RULER.match(lines[at + 1].strip()):
            block, at = _numpy_block(lines, at + 2)
            _items(found, match[1], block, _NUMPY_ITEM, None)
        else:
            at += 1
    return found


def _keep(found: Fields, kind: str, name: str, text: str) -> None:
    text = " ".join(text.split())
    if not text:
        return
    if kind.lower().startswith(("param", "arg", "other")):
        found.parameters.setdefault(name.strip("*"), text)
    elif kind.lower().startswith("raise"):
        found.raises.setdefault(name, text)
    elif not found.returns:
        found.returns = text


def _items(found: Fields, kind: str, block: list[str], pattern: re.Pattern[str], inline: int | None) -> None:
    """Divide a section's lines into items: each starts at the section's own indent."""
    if not block:
        return
    own = min(_indent(line) for line in block if line.strip())
    if kind.lower().startswith(("return", "yield")) and inline:
        _keep(found, kind, "", " ".join(block))
        return
    name, parts = "", list[str]()
    for line in [*block, None]:
        match = pattern.match(line.strip()) if line is not None and line.strip() and _indent(line) == own else None
        if line is None or match:
            _keep(found, kind, name, " ".join(parts))
            if match:
                name, parts = match[1].split(",")[0].strip(), [match[inline]] if inline else []
        else:
            parts.append(line)


def _block(lines: list[str], at: int, indent: int) -> tuple[list[str], int]:
    start = at
    while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > indent):
        at += 1
    return [line for line in lines[start:at] if line.strip()], at


def _numpy_block(lines: list[str], at: int) -> tuple[list[str], int]:
    start = at
    while at < len(lines) and not (at + 1 < len(lines) and _RULER.match(lines[at + 1].strip())):
        at += 1
    return [line for line in lines[start:at] if line.strip()], at


def _continued(lines: list[str], at: int, first: str) -> tuple[int, str]:
    indent, parts = _indent(lines[at]), [first]
    at += 1
    while at < len(lines) and lines[at].strip() and _indent(lines[at]) > indent:
        parts.append(lines[at])
        at += 1
    return at, " ".join(parts)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
