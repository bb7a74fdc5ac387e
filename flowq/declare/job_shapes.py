"""The shapes of a job's own keys: edges, groups, conditions, limits, commands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flowq.callables import CALL as CALLED
from flowq.declare.input_shapes import NAME_PATTERN, read_inputs
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.retries import (
    CAUSE_HINT,
    MAX_FACTOR,
    MAX_RETRIES,
    UnknownCause,
    read_cause,
    read_factor,
    read_share,
)
from flowq.declare.shapes import (
    DURATION,
    MESSAGE,
    TEXT,
    TIMEOUT,
    Key,
    Shape,
    Vocabulary,
    check_keys,
    choice,
    either,
    find_meant,
    is_empty,
    read_count,
    read_data,
    read_expression,
    read_template,
    say,
    to_template,
)
from flowq.expressions import as_source, as_template, tidy
from flowq.spec import (
    ALL_TOLERATED,
    NONE_TOLERATED,
    Approval,
    Block,
    Input,
    Matrix,
    Retry,
    Tolerance,
)

_ANY_TEXT = {"type": ["string", "number", "boolean"]}
_PERCENTAGE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")
_JOB_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DOTTED = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\.([^\W\d]\w*)")
_FILE = re.compile(r"(.+)\.py:(\w+)")


def _read_call(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and CALLED.fullmatch(node.text):
        return node.text
    message = f"{label} must be package.module:function, not {say(node)}"
    text = node.text if isinstance(node, ScalarNode) else ""
    problems.add("FQ114", node, message, _call_hint(text))
    return None


def _call_hint(text: str) -> str:
    bare = text.partition("(")[0].strip()
    if "${{" in text:
        return "a call is fixed text; expressions are filled in under `with`"
    if found := _FILE.fullmatch(bare):
        module = found.group(1).removeprefix("./").replace("/", ".")
        return f"name the module, not the file: {module}:{found.group(2)}"
    if found := _DOTTED.fullmatch(bare):
        return f"did you mean {found.group(1)}:{found.group(2)!s}?"
    if bare != text and CALLED.fullmatch(bare):
        return f"leave the parentheses away, and put the arguments under `with`: {bare}"
    return "for example: photos.tasks:make_thumbnail; a shell command is `run: …`"


# Names and edges.


def check_name(key: ScalarNode, problems: Problems) -> None:
    """Note a name that cannot be part of a job's id."""
    name = key.text
    if _JOB_NAME.fullmatch(name) and "--" not in name:
        return
    hint = "letters, digits, _ and single - only, no digit first: it becomes part of the job's id"
    problems.add("FQ109", key, f"{name!r} cannot be the name of a job", hint)


def read_names(label: str, node: Node, problems: Problems) -> tuple[str, ...]:
    """Read a name or a list of names; one that stands there twice counts once."""
    return tuple(dict.fromkeys(_names(label, node, problems)))


def _names(label: str, node: Node, problems: Problems) -> Iterator[str]:
    if is_empty(node):
        return
    items = node.items if isinstance(node, ListNode) else [node]
    for item in items:
        if not isinstance(item, ScalarNode) or is_empty(item):
            message = f"{label} must be a job's name, or a list of names, not {say(item)}"
            problems.add("FQ105", item, message)
        elif "," in item.text or " " in item.text:
            message = f"{label} must be a job's name, or a list of names, not {say(item)}"
            problems.add("FQ105", item, message, _names_hint(item.text))
            if "${{" not in item.text:  # they are surely meant
                yield from item.text.replace(",", " ").split()
        else:
            yield item.text


def _names_hint(text: str) -> str:
    if "${{" in text:
        return "write the names out: an expression cannot name a job"
    return f"write a list: [{', '.join(text.replace(',', ' ').split())}]"


def _read_blocks(label: str, node: Node, problems: Problems) -> tuple[Block, ...]:
    if not isinstance(node, MapNode):
        return tuple(Block(name) for name in read_names(label, node, problems))
    blocks = []
    for name, inner in node.node_by_key.items():
        policy = None
        if not is_empty(inner):
            policy = (_EDGE.read(f"the edge to {name}", inner, problems) or {}).get("on_failure")
        blocks.append(Block(name, policy))
    return tuple(blocks)


def name_nodes(node: Node | None) -> Iterator[tuple[str, ScalarNode]]:
    """Yield the names that `needs` or `blocks` hold, and where each stands."""
    if isinstance(node, ScalarNode) and not is_empty(node):
        yield node.text, node
    elif isinstance(node, MapNode):
        yield from node.key_by_key.items()
    elif isinstance(node, ListNode):
        yield from ((one.text, one) for one in node.items if isinstance(one, ScalarNode))


def _read_edge_policy(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and node.value == "ignore":
        return "ignore"
    hint = "for all blockers of a job, say on_blocker_failure there"
    problems.add("FQ105", node, f"{label} of an edge must be ignore, not {say(node)}", hint)
    return None


_EDGE = Vocabulary(
    "an edge",
    {
        "on_failure": Key(
            Shape(_read_edge_policy, {"const": "ignore"}), "Its failure does not matter here."
        )
    },
)

# Limits.


def _read_tolerance(label: str, node: Node, problems: Problems) -> Tolerance | None:
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool):
        return ALL_TOLERATED if value else NONE_TOLERATED
    if isinstance(value, int) and value >= 0:
        return Tolerance(count=value)
    found = _PERCENTAGE.fullmatch(value) if isinstance(value, str) else None
    if found and float(found.group(1)) <= 100:
        percent = float(found.group(1))
        return Tolerance(percent=int(percent) if percent.is_integer() else percent)
    message = f"{label} must be true, a count or a percentage, not {say(node)}"
    problems.add("FQ105", node, message, "write true, 3, or 20% of a group")
    return None


def _read_approval(label: str, node: Node, problems: Problems) -> Approval | None:
    if isinstance(node, ScalarNode) and isinstance(node.value, bool):
        return Approval() if node.value else None
    if not isinstance(node, MapNode):
        message = f"{label} must be true or a map, not {say(node)}"
        problems.add(
            "FQ105", node, message, "write true, or {message: …, inputs: {…}, expires: 2d}"
        )
        return None
    words = _APPROVAL.read(label, node, problems) or {}
    return Approval(words.get("message", ""), words.get("expires"), words.get("inputs", ()))


def _read_inputs(label: str, node: Node, problems: Problems) -> tuple[Input, ...]:
    return tuple(read_inputs(node, problems))


_APPROVAL = Vocabulary(
    "approval",
    {
        "message": Key(
            MESSAGE,
            "What the person who approves should know.",
            ("Publish ${{ jobs.pack.result }}?",),
        ),
        "inputs": Key(
            Shape(
                _read_inputs,
                {
                    "type": ["object", "null"],
                    "patternProperties": {NAME_PATTERN: {"$ref": "#/$defs/input"}},
                    "additionalProperties": False,
                },
            ),
            "What an approval has to give, by name.",
        ),
        "expires": Key(TIMEOUT, "How long to wait before the job fails.", ("2d",)),
    },
)

# Commands.


def _read_command(label: str, node: Node, problems: Problems) -> str | tuple[str, ...] | None:
    """Read a text for a shell, or a list of a program and its arguments."""
    if isinstance(node, MapNode):
        message = f"{label} must be a text or a list, not a map"
        problems.add("FQ105", node, message, _COMMAND_HINT)
        return None
    if not isinstance(node, ListNode):
        return read_template(label, node, problems)
    if not node.items:
        message = f"{label} is an empty list"
        problems.add("FQ105", node, message, _COMMAND_HINT)
    words = []
    for item in node.items:
        if isinstance(item, ScalarNode) and not item.is_null:
            words.append(tidy(item.text))
        else:
            message = f"an item of {label} must be text, not {say(item)}"
            problems.add("FQ105", item, message, _word_hint(item))
    if words[:1] == [""]:
        message = f"the first item of {label} is empty, and names no program"
        problems.add("FQ105", node, message, _COMMAND_HINT)
    return tuple(words) or None


_COMMAND_HINT = "write a program and its arguments: [tar, -cf, data.tar, data]"


def _word_hint(node: Node) -> str:
    if isinstance(node, ScalarNode):
        return f'if it is text, write it in quotes: "{node.text}"'
    return "each item is one argument: write several items, or quote a text with [ or {"


# Groups.


def _read_items(label: str, node: Node, problems: Problems) -> Any:
    if isinstance(node, ListNode):
        return read_data(label, node, problems)
    if _is_more_than_a_word(node):
        source = read_expression(label, node, problems)
        return None if source is None else as_template(source)
    message = f"{label} must be a list, or an expression that gives one, not {say(node)}"
    problems.add("FQ105", node, message, _items_hint(node))
    return None


def _is_more_than_a_word(node: Node) -> bool:
    value = node.value if isinstance(node, ScalarNode) else None
    return isinstance(value, str) and value != "" and not _WORD.fullmatch(value)


def _items_hint(node: Node) -> str:
    if isinstance(node, ScalarNode) and isinstance(node.value, int):
        return f"to count: ${{{{ range({node.text}) }}}}"
    if isinstance(node, ScalarNode) and _WORD.fullmatch(node.text):
        return f"write ${{{{ jobs.{node.text}.result }}}}, or ${{{{ inputs.{node.text} }}}}"
    return "write [a, b, c], or ${{ jobs.NAME.result }}"


def read_environment(label: str, node: Node, problems: Problems) -> dict[str, str] | None:
    """Read a map of environment variables; numbers and flags keep the text that was written."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of variables, not {say(node)}"
        problems.add("FQ105", node, message, "write NAME: value, each on its line")
        return None
    environment = {}
    for name, inner in node.node_by_key.items():
        if not re.fullmatch(VARIABLE, name):
            hint = "letters, digits and _ only, no digit first"
            message = f"{name!r} cannot be the name of a variable"
            problems.add("FQ109", node.key_by_key[name], message, hint)
        elif not isinstance(inner, ScalarNode):
            problems.add("FQ105", inner, f"{name} in {label} must be text, not {say(inner)}")
        else:
            environment[name] = "" if is_empty(inner) else tidy(inner.text)
    return environment


CALL = Shape(_read_call, {"type": "string", "pattern": f"^{CALLED.pattern}$"})
COMMAND = either(_read_command, TEXT.schema, {"type": "array", "items": _ANY_TEXT, "minItems": 1})
NAMES = either(
    read_names,
    {"type": ["string", "number", "boolean", "null"], "not": {"pattern": "[ ,]"}},
    {"type": "array", "items": {**_ANY_TEXT, "not": {"pattern": "[ ,]"}}},
)
BLOCKS = either(
    _read_blocks,
    *NAMES.schema["anyOf"],
    {"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, _EDGE.schema()]}},
)
TOLERANCE = either(
    _read_tolerance,
    {"type": "boolean"},
    {"type": "integer", "minimum": 0},
    {"type": "string", "pattern": r"^\s*[0-9]{1,3}(\.[0-9]{1,6})?\s*%\s*$"},
)
APPROVAL = either(_read_approval, {"type": "boolean"}, _APPROVAL.schema())
POLICY = choice("wait", "skip", "run")
ITEMS = either(_read_items, {"type": "array"}, {"type": "string", "minLength": 1})
ENVIRONMENT = Shape(
    read_environment,
    {
        "type": ["object", "null"],
        "patternProperties": {f"^{VARIABLE}$": {"type": [*_ANY_TEXT["type"], "null"]}},
        "additionalProperties": False,
    },
)


# The `matrix` of a job, with what `include` and `exclude` say beside it or inside of it.


_BESIDE = ("include", "exclude")


def build_matrix(job: MapNode, stop_when: str | None) -> Matrix | None:
    """Return the matrix of a job whose keys have been read, or None when it has none."""
    node = job.node_by_key.get("matrix")
    inside = node.node_by_key if isinstance(node, MapNode) else {}
    if node is None and "include" not in job.node_by_key:
        return None
    axes = {name: axis for name, axis in inside.items() if name not in _BESIDE}
    as_text = {name for name, axis in axes.items() if _holds_versions(axis)}
    values = {name: _values(axis, name in as_text) for name, axis in axes.items()}
    include, exclude = (
        tuple(
            {key: _value(inner, key in as_text) for key, inner in combination.node_by_key.items()}
            for place in (inside, job.node_by_key)
            for combination in _combinations(place.get(key))
        )
        for key in _BESIDE
    )
    return Matrix(values, include, exclude, stop_when)


def _values(axis: Node, as_text: bool) -> Any:
    if isinstance(axis, ListNode):
        return [_value(item, as_text) for item in axis.items]
    if isinstance(axis, ScalarNode) and "${{" in axis.text:
        return as_template(as_source(axis.text))
    return []


def _value(node: Node, as_text: bool) -> Any:
    is_text = as_text and isinstance(node, ScalarNode) and not is_empty(node)
    return node.text if is_text and isinstance(node, ScalarNode) else to_template(node)


def _holds_versions(axis: Node) -> bool:
    """Whether a value is no number as it is written: then the whole axis holds texts.

    `[3.9, 3.10]` are versions: as numbers, the second would be 3.1.
    """
    items = axis.items if isinstance(axis, ListNode) else []
    return any(isinstance(item, ScalarNode) and _is_version(item) for item in items)


def _is_version(node: ScalarNode) -> bool:
    if not node.is_plain or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", node.text):
        return False
    return str(node.value) != node.text and not node.text.startswith("0.")


def _combinations(node: Node | None) -> Iterator[MapNode]:
    items = node.items if isinstance(node, ListNode) else [node]
    return (item for item in items if isinstance(item, MapNode))


# Reading, which notes what has not that shape.


def _read_matrix(label: str, node: Node, problems: Problems) -> Node | None:
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of names to lists, not {say(node)}"
        problems.add("FQ105", node, message, "write {os: [linux, windows], python: [3.11, 3.12]}")
        return None
    for name, inner in node.node_by_key.items():
        if name in _BESIDE:
            _read_combinations(name, inner, problems)
        elif not re.fullmatch(VARIABLE, name):
            hint = "letters, digits and _ only, no digit first"
            message = f"{name!r} cannot be the name of an axis"
            problems.add("FQ109", node.key_by_key[name], message, hint)
        else:
            _read_axis(name, inner, problems)
    return node


def _read_axis(label: str, node: Node, problems: Problems) -> None:
    if isinstance(node, ListNode):
        check_keys(node, problems)
    elif isinstance(node, ScalarNode) and "${{" in node.text:
        read_expression(label, node, problems)
    else:
        told = isinstance(node, ScalarNode) and node.text
        message = f"{label} in a matrix must be a list, not {say(node)}"
        problems.add("FQ105", node, message, f"write [{told or 'a, b, c'}]")


def _read_combinations(label: str, node: Node, problems: Problems) -> Node | None:
    items = node.items if isinstance(node, ListNode) else [node]
    if not all(isinstance(item, MapNode) for item in items):
        message = f"{label} must be a list of maps, not {say(node)}"
        problems.add("FQ105", node, message, "write [{os: linux, python: 3.11}]")
        return None
    check_keys(node, problems)
    return node


_AXIS: Mapping[str, Any] = {"anyOf": [{"type": "array"}, {"type": "string", "pattern": r"\$\{\{"}]}
COMBINATIONS = either(
    _read_combinations, {"type": "array", "items": {"type": "object"}}, {"type": "object"}
)
MATRIX = Shape(
    _read_matrix,
    {
        "type": "object",
        "properties": dict.fromkeys(_BESIDE, COMBINATIONS.schema),
        "patternProperties": {f"^(?!(?:include|exclude)$){VARIABLE}$": _AXIS},
        "additionalProperties": False,
    },
)


# Retries: a number, or a map that says when and after what.


def _read_retries(label: str, node: Node, problems: Problems) -> Retry | None:
    if isinstance(node, MapNode):
        words = _RETRIES.read(label, node, problems) or {}
        if "max" not in node.node_by_key and "max" not in find_meant(node, _RETRIES):
            problems.add("FQ106", node, f"{label} has no `max`", "write {max: 3, backoff: 2s}")
        return Retry(
            words.get("max", 0),
            words.get("backoff", 0),
            words.get("factor", 1),
            words.get("max_backoff"),
            words.get("jitter", 0),
            words.get("within"),
            words.get("on", ()),
            words.get("never_on", ()),
        )
    if isinstance(node, ScalarNode) and isinstance(node.value, int):
        count = _read_max(label, node, problems)
        return None if count is None else Retry(count)
    message = f"{label} must be a whole number or a map, not {say(node)}"
    problems.add("FQ105", node, message, "write 3, or {max: 3, backoff: 2s}")
    return None


def _read_max(label: str, node: Node, problems: Problems) -> int | None:
    count = read_count(label, node, problems)
    if count is not None and count > MAX_RETRIES:
        message = f"{label} must be at most {MAX_RETRIES:,}, not {say(node)}"
        problems.add("FQ125", node, message, "for work that never ends, schedule a workflow")
        return None
    return count


def _number(read: Callable[[object], float]) -> Callable[[str, Node, Problems], float | None]:
    def reader(label: str, node: Node, problems: Problems) -> float | None:
        try:
            return read(node.value if isinstance(node, ScalarNode) else say(node))
        except ValueError as error:
            problems.add(
                "FQ125",
                node,
                f"{label} {error}",
                "as in {max: 5, backoff: 2s, factor: 2, jitter: 20%}",
            )
            return None

    return reader


def _read_causes(label: str, node: Node, problems: Problems) -> tuple[str, ...]:
    causes = []
    for item in node.items if isinstance(node, ListNode) else [node]:
        if not isinstance(item, ScalarNode) or item.is_null:
            message = f"{label} must name exception classes and exit codes, not {say(item)}"
            problems.add("FQ126", item, message, CAUSE_HINT)
            continue
        try:
            causes.append(read_cause(item.text))
        except UnknownCause as error:
            problems.add("FQ126", item, f"{label} {error}", error.hint)
    return tuple(dict.fromkeys(causes))


_CAUSE = {"type": ["string", "integer"]}
_CAUSES = either(_read_causes, _CAUSE, {"type": "array", "items": _CAUSE})
_MAX = {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES}

_RETRIES = Vocabulary(
    "retries",
    {
        "max": Key(Shape(_read_max, _MAX), "How often it is tried again.", (3,)),
        "backoff": Key(DURATION, "How long to wait before the second attempt.", ("2s",)),
        "factor": Key(
            Shape(_number(read_factor), {"type": "number", "minimum": 1, "maximum": MAX_FACTOR}),
            "Each further wait is so many times as long.",
            (2,),
        ),
        "max_backoff": Key(TIMEOUT, "The longest wait; a day unless it is said.", ("5m",)),
        "jitter": Key(
            either(
                _number(read_share),
                {"type": "number", "minimum": 0, "maximum": 1},
                {"type": "string", "pattern": r"^\s*[0-9]{1,3}(\.[0-9]{1,6})?\s*%\s*$"},
            ),
            "A random part of up to this share makes each wait longer.",
            (0.2, "20%"),
        ),
        "within": Key(
            TIMEOUT, "No attempt begins later than this after the first one began.", ("1h",)
        ),
        "on": Key(
            _CAUSES,
            "Only failures by these are tried again: exception classes, exit codes.",
            ("ConnectionError", ["requests.exceptions:Timeout", 137, "1-3"]),
        ),
        "never_on": Key(_CAUSES, "Failures by these are final.", ("ValueError", [2, "64-78"])),
    },
    required=("max",),
)

RETRIES = either(_read_retries, _MAX, _RETRIES.schema())
