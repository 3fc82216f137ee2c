"""Tool calls in one stable spelling: `call: NAME {"argument": "value"}`.

The arguments are JSON on one line, keys sorted, so that equal calls are equal texts however an API wrote them. A reply
needs no mark: no reply begins with `call: `, a name and a brace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

CALL = "call: "
RESULT = "result: "

_TAGGED = re.compile(
    r"<(tool_call|functioncall|function_call)>\s*(.*?)\s*(?:</\1>|(?=<\1>)|<\|endoftext\|>|\Z)", re.DOTALL
)
_NAME = re.compile(r"""["']name["']\s*:\s*["']([^"']+)["']""")
_QUOTED_ARGUMENTS = re.compile(r"""["']arguments["']\s*:\s*'(.*)'\s*\}""", re.DOTALL)


def spell_call(name: str, arguments: object) -> str:
    """The spelling of one call. Arguments may be an object or, as APIs send them, JSON in a string."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            return f"{CALL}{name} {' '.join(str(arguments).split())}"  # as it was written, on one line
    return f"{CALL}{name} {spell_json({} if arguments is None else arguments)}"


def spell_json(value: object) -> str:
    """JSON on one line, keys sorted."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def calls_of(message: Mapping[str, object]) -> list[str]:
    """The calls in an assistant's message: `tool_calls`, or `function_call` as it was before."""
    listed = message.get("tool_calls") or ()
    calls = list(listed) if isinstance(listed, (list, tuple)) else [listed]
    calls += [message["function_call"]] if message.get("function_call") else []
    return [spelt for call in calls if (spelt := _spell(call))]


def calls_in_text(text: str) -> tuple[str, list[str]]:
    """A reply without the calls that are written into it between tags, and those calls."""
    calls = [spelt for _, call in _TAGGED.findall(text) if (spelt := call_from_text(call))]
    return (_TAGGED.sub("", text).strip(), calls) if calls else (text, [])


def call_from_text(text: str) -> str:
    """The call that a text says as {"name": …, "arguments": …}; "" where it says none.

    The arguments may be an object, JSON in a string, or JSON in single quotes, which is no JSON.
    """
    try:
        return _spell(json.loads(text))
    except (ValueError, RecursionError):
        name, quoted = _NAME.search(text), _QUOTED_ARGUMENTS.search(text)
        return spell_call(name[1], quoted[1]) if name and quoted else ""


def _spell(call: Any) -> str:
    """One call as APIs write it: {"function": {"name", "arguments"}}, or that without the outer object."""
    if isinstance(call, str):
        return call_from_text(call)
    if isinstance(call, list):
        return "\n".join(spelt for one in call if (spelt := _spell(one)))
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return ""
    arguments = next((inner[key] for key in ("arguments", "input", "parameters", "args") if key in inner), None)
    return spell_call(inner["name"], arguments)
