"""Tables of docs/concepts/protocol.md from the code: `python -m scripts.protocol_docs` writes them, `--check` fails on
drift.

Only the text between `<!-- generated: NAME -->` and `<!-- end: NAME -->` is touched.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import cleandoc, getsource
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import NODEFAULT, inspect

import wire.limits
import wire.messages
import wire.routes
import wire.run
from scripts.generated_page import bring_up_to_date, table, with_section
from wire.fields import Message
from wire.rounds import BOARD, ROUND, RUN
from wire.routes import Call

PROTOCOL_PAGE = Path(__file__).parents[1] / "docs" / "concepts" / "protocol.md"
_BLOCK = re.compile(r"<!-- generated: (?P<name>[a-z-]+) -->\n.*?<!-- end: (?P=name) -->", re.DOTALL)


def render(page: str) -> str:
    """The page with every generated block made anew. Raises ValueError for a block nobody generates, or one missing."""
    names = [match["name"] for match in _BLOCK.finditer(page)]
    if sorted(names) != sorted(BLOCKS):
        raise ValueError(f"blocks of the page are {sorted(names)}, blocks that are generated are {sorted(BLOCKS)}")
    for name, make in BLOCKS.items():
        page = with_section(page, name, make())
    return page


def main(arguments: Sequence[str], page: Path = PROTOCOL_PAGE) -> int:
    """0 if the page is up to date now; 1 if `--check` found that it is not."""
    text = render(page.read_text(encoding="utf-8"))
    return bring_up_to_date(page, text, "python -m scripts.protocol_docs", arguments)


def limits_table() -> str:
    """Each constant of wire.limits with its value and the string below it."""
    rows = [(f"`{name}`", f"{getattr(wire.limits, name):,}", why) for name, why in _reasons(wire.limits).items()]
    return table(("limit", "value", "why"), rows)


def calls_table() -> str:
    """Each call of wire.routes with what goes either way and the string below it."""
    reasons = _reasons(wire.routes)
    calls = {name: call for name, call in vars(wire.routes).items() if isinstance(call, Call)}
    rows = [(_address(call), _bodies(call), reasons[name]) for name, call in calls.items()]
    return table(("call", "body → answer", "notes"), rows)


def headers_table() -> str:
    """Each header of uploads that wire.routes names, with the string below it."""
    reasons = _reasons(wire.routes)
    headers = {name: value for name, value in vars(wire.routes).items() if name.startswith("UPLOAD_")}
    names = {name: value for name, value in headers.items() if isinstance(value, str)}
    rows = [(f"`{header}`", reasons[name]) for name, header in names.items()]
    return table(("header", "what it says"), rows)


def message_tables() -> str:
    """Every message type, in the order of wire.run and wire.messages: what it is for, then its fields."""
    kinds = [
        kind
        for kind in (vars(wire.run) | vars(wire.messages)).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
    ]
    return "\n\n".join(_message_section(kind) for kind in kinds)


def transition_table(transitions: Mapping[Any, Any]) -> str:
    """The lines of one state table of wire.rounds; states in which an event does the same share one."""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for (state, event), (following, why) in transitions.items():
        merged.setdefault((event.value, f"`{following.value}`", why), []).append(f"`{state.value}`")
    return table(
        ("state", "event", "next", "what it means"),
        [(", ".join(states), event, following, why) for (event, following, why), states in merged.items()],
    )


def _reasons(module: ModuleType) -> dict[str, str]:
    """The public constants of a module in its order, each with the string below it, on one line."""
    reasons = {}
    for line, below in pairwise(ast.parse(getsource(module)).body):
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            if name.startswith("_"):
                continue
            assert isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant), f"{name} gives no reason"
            reasons[name] = " ".join(str(below.value.value).split())
    return reasons


def _address(call: Call) -> str:
    return f"`{call.method} {call.path}{'?' if call.query else ''}{call.query}`"


def _bodies(call: Call) -> str:
    sends, answers = (
        body if isinstance(body, str) else f"[{body.__name__}](#{body.__name__.lower()})"
        for body in (call.sends, call.answers)
    )
    return f"{sends} → {answers}".strip() if sends or answers else ""


BLOCKS: dict[str, Callable[[], str]] = {
    "calls": calls_table,
    "upload-headers": headers_table,
    "limits": limits_table,
    "messages": message_tables,
    "run-states": lambda: transition_table(RUN),
    "round-states": lambda: transition_table(ROUND),
    "board-states": lambda: transition_table(BOARD),
}


def _message_section(kind: type[Message]) -> str:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    notes = dict(re.findall(r"^    (\w+): .*?  # (.+)$", getsource(kind), re.MULTILINE))
    rows = [
        (f"`{field.name}`", _type_text(field.type), _default_text(field), notes.get(field.name, ""))
        for field in info.fields
    ]
    described = cleandoc(kind.__dict__.get("__doc__") or "")
    return "\n\n".join(
        filter(None, (f"### {kind.__name__}", described, table(("field", "type", "default", "note"), rows)))
    )


def _default_text(field: inspect.Field) -> str:
    default = field.default if field.default_factory is NODEFAULT else field.default_factory()
    if default is NODEFAULT:
        return "" if field.required else "left out"
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return f"{default:g}"
    words = {None: "nil", False: "false", True: "true"}
    return "empty" if default in (b"", "", (), {}) else words.get(default, f"`{default}`")


def _type_text(kind: inspect.Type) -> str:
    """A type in a few words that need no Python."""
    match kind:
        case inspect.StructType(cls=cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()})"
        case inspect.LiteralType(values=values):
            return ", ".join(f"`{value}`" for value in values)
        case inspect.IntType(ge=least, le=most):
            return "int" if least is None else f"int {least:,} to {most:,}"
        case inspect.FloatType(gt=above, ge=least, le=most):
            start = f"above {above:g}" if least is None else f"{least:g}"
            return f"float {start} to {most:g}"
        case inspect.StrType(pattern=pattern, max_length=most):
            return f"string, `{pattern}`" if most is None else f"string, at most {most:,} characters"
        case inspect.BytesType():
            return "bin"
        case inspect.TupleType(item_types=items):
            return f"array of {len(items)}: {_type_text(items[0])}"
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return f"array of {least or 0} to {most:,}: {_type_text(item)}"
        case inspect.DictType(key_type=key, value_type=value, max_length=most):
            return f"map of at most {most}: {_type_text(key)} → {_type_text(value)}"
        case inspect.UnionType(types=types):
            return " or ".join(_type_text(one) for one in types)
    return "bool" if isinstance(kind, inspect.BoolType) else "nil"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
