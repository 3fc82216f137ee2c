"""Pins of constraints.txt that hold on a board: pip itself judges them by the machine that it runs on, and packages are
fetched for boards on other ones. Standard library only.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterable

from edge_client.host.torch_build.facts import Version, numbers

_ON_EVERY_BOARD = {
    "sys_platform": "linux",
    "platform_system": "Linux",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}
"""Answers to what markers ask, where all boards are alike."""

_ORDERS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def pins_on(lines: Iterable[str], python: Version, machine: str) -> list[str]:
    """The lines that hold for a Python and an architecture, without their markers.

    Raises ValueError for a marker that is none of constraints.txt's kind: comparisons of a variable with a value,
    joined by and, or, parentheses.
    """
    found = []
    for line in lines:
        pin, _, marker = line.partition(";")
        if not marker or _holds(ast.parse(marker.strip(), mode="eval").body, python, machine):
            found.append(pin.strip())
    return found


def _holds(node: ast.expr, python: Version, machine: str) -> bool:
    """Whether a marker is true; its grammar is a part of Python's own."""
    if isinstance(node, ast.BoolOp):
        parts = [_holds(part, python, machine) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    match node:
        case ast.Compare(left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=str(value))]):
            compare = _ORDERS.get(type(op))
            if compare is None:
                pass
            elif name in ("python_version", "python_full_version"):
                wanted = numbers(value)  # (3, 11) of "3.11.*" too
                return bool(compare(python[: len(wanted)], wanted))
            elif name in (known := _ON_EVERY_BOARD | {"platform_machine": machine}):
                return bool(compare(known[name], value))
    raise ValueError(f"constraints.txt has a marker that boards do not understand: {ast.unparse(node)}")
