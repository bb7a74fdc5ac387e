"""The shapes of values that only jobs have: edges, groups, conditions, limits, commands.

`keys` uses them in the table of the language. Shared shapes are in `shapes`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flowq.callables import CALL as CALLED
from flowq.declare.input_shapes import NAME_PATTERN, read_inputs, write_input
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode, is_empty, is_text, say
from flowq.declare.problems import Problems
from flowq.declare.retries import (
    CAUSE_HINT,
    MAX_EXIT_CODE,
    MAX_FACTOR,
    MAX_RETRIES,
    UnknownCause,
    read_cause,
    read_factor,
    read_share,
)
from flowq.declare.shapes import (
    DURATION,
    EXPRESSION,
    INTERVAL,
    MESSAGE,
    TEXT,
    TIMEOUT,
    Key,
    Shape,
    Vocabulary,
    either,
    find_meant,
    or_expression,
    read_count,
    read_data,
    read_expression,
    read_template,
    template_of,
)
from flowq.durations import parse_pause, write_seconds
from flowq.expressions import as_template
from flowq.expressions.templates import has_expression
from flowq.problems import (
    BAD_CALL,
    BAD_DURATION,
    BAD_NAME,
    BAD_RETRY_CAUSE,
    MISSING_KEY,
    RETRIES_OUT_OF_BOUNDS,
    WRONG_SHAPE,
)
from flowq.spec import (
    ALL_TOLERATED,
    NONE_TOLERATED,
    Approval,
    Block,
    Input,
    Poll,
    Retry,
    Tolerance,
)

_ANY_TEXT = {"type": ["string", "number", "boolean"]}
_PERCENTAGE = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%\s*")
_SEVERAL_NAMES = {"type": "string", "pattern": "[ ,]"}
_PERCENTAGE_TEXT = {
    "type": "string",
    "pattern": r"^\s*(0?[0-9]{1,2}(\.[0-9]{1,6})?|100(\.0{1,6})?)\s*%\s*$",
}
_JOB_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_DOTTED = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\.([^\W\d]\w*)")
_FILE = re.compile(r"(.+)\.py:(\w+)")


def _read_call(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and CALLED.fullmatch(node.text):
        return node.text
    text = node.text if isinstance(node, ScalarNode) else ""
    bare = text.partition("(")[0].strip()
    hint = "for example: photos.tasks:make_thumbnail; a shell command is `run: …`"
    if "${{" in text:
        hint = "a call is fixed text; expressions are filled in under `with`"
    elif found := _FILE.fullmatch(bare):
        module = found.group(1).removeprefix("./").replace("/", ".")
        hint = f"name the module, not the file: {module}:{found.group(2)}"
    elif found := _DOTTED.fullmatch(bare):
        hint = f"did you mean {found.group(1)}:{found.group(2)}?"
    elif bare != text and CALLED.fullmatch(bare):
        hint = f"remove the parentheses, and put the arguments under `with`: {bare}"
    message = f"{label} must be package.module:function, not {say(node)}"
    problems.add(BAD_CALL, node, message, hint)
    return None


# Names and edges.


def check_name(key: ScalarNode, problems: Problems) -> None:
    """Note a name that cannot be part of a job's id."""
    name = key.text
    if _JOB_NAME.fullmatch(name) and "--" not in name:
        return
    hint = "letters, digits, _ and single - only, no digit first: it becomes part of the job's id"
    problems.add(BAD_NAME, key, f"{name!r} cannot be the name of a job", hint)


_ANY = frozenset({"any", "any_of", "one_of", "or", "first"})


def read_names(label: str, node: Node, problems: Problems) -> tuple[str, ...]:
    """Read a name or a list of names, without repeats."""
    names: dict[str, None] = {}
    if is_empty(node):
        return ()
    for item in node.items if isinstance(node, ListNode) else [node]:
        hint = ""
        if isinstance(item, ScalarNode) and is_text(item):
            if "," not in item.text and " " not in item.text:
                names[item.text] = None
                continue
            hint = "write the names out: an expression cannot name a job"
            if "${{" not in item.text:
                several = item.text.replace(",", " ").split()
                names |= dict.fromkeys(several)  # certainly meant
                hint = f"write a list: [{', '.join(several)}]"
        elif isinstance(item, MapNode) and item.node_by_key.keys() & _ANY:
            hint = "to start at the first success of several: [a, b], and `start_when: one_success`"
        message = f"{label} must be a job's name, or a list of names, not {say(item)}"
        problems.add(WRONG_SHAPE, item, message, hint)
    return tuple(names)


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


def _write_names(names: Sequence[str]) -> Any:
    return names[0] if len(names) == 1 else list(names)


def _write_blocks(blocks: Sequence[Block]) -> Any:
    if any(block.on_failure for block in blocks):
        return {b.name: {"on_failure": b.on_failure} if b.on_failure else None for b in blocks}
    return _write_names([block.name for block in blocks])


def name_nodes(node: Node | None) -> Iterator[tuple[str, ScalarNode]]:
    """Yield the names in the value of `needs` or `blocks`, each with its node."""
    if isinstance(node, ScalarNode) and is_text(node):
        yield node.text, node
    elif isinstance(node, MapNode):
        yield from node.key_by_key.items()
    elif isinstance(node, ListNode):
        yield from (
            (one.text, one) for one in node.items if isinstance(one, ScalarNode) and is_text(one)
        )


def _read_edge_policy(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and node.value == "ignore":
        return "ignore"
    hint = "for all blockers of a job, say on_blocker_failure there"
    problems.add(WRONG_SHAPE, node, f"{label} of an edge must be ignore, not {say(node)}", hint)
    return None


_EDGE = Vocabulary(
    "an edge",
    {
        "on_failure": Key(
            Shape(_read_edge_policy, {"const": "ignore"}), "Ignore a failure of this job."
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
    problems.add(WRONG_SHAPE, node, message, "write true, 3, or 20% of a group")
    return None


def _write_tolerance(tolerance: Tolerance) -> Any:
    if tolerance in (ALL_TOLERATED, NONE_TOLERATED):
        return tolerance == ALL_TOLERATED
    return tolerance.count if tolerance.percent is None else f"{tolerance.percent}%"


def _read_approval(label: str, node: Node, problems: Problems) -> Approval | None:
    if isinstance(node, ScalarNode) and isinstance(node.value, bool):
        return Approval() if node.value else None
    if not isinstance(node, MapNode):
        message = f"{label} must be true or a map, not {say(node)}"
        hint = "write true, or {message: …, inputs: {…}, expires: 2d}"
        problems.add(WRONG_SHAPE, node, message, hint)
        return None
    return Approval(**_APPROVAL.to_fields(_APPROVAL.read(label, node, problems) or {}))


def _read_inputs(label: str, node: Node, problems: Problems) -> tuple[Input, ...]:
    return tuple(read_inputs(node, problems))


_APPROVAL = Vocabulary(
    "approval",
    {
        "message": Key(
            MESSAGE,
            "What to tell the person who approves.",
            ("Publish ${{ jobs.pack.result }}?",),
            "message",
        ),
        "inputs": Key(
            Shape(
                _read_inputs,
                {
                    "type": ["object", "null"],
                    "patternProperties": {NAME_PATTERN: {"$ref": "#/$defs/input"}},
                    "additionalProperties": False,
                },
                lambda inputs: {each.name: write_input(each) for each in inputs},
            ),
            "The values that an approval takes, by name.",
            (),
            "inputs",
        ),
        "expires": Key(
            TIMEOUT, "How long to wait for an approval before the job fails.", ("2d",), "expires_s"
        ),
    },
)

# Waiting.


def _read_sleep(label: str, node: Node, problems: Problems) -> str | None:
    """Read how long to sleep, or until when: an expression, or a value that is checked here."""
    value = node.value if isinstance(node, ScalarNode) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = str(value) if is_number else read_template(label, node, problems)
    if text is None or has_expression(text):
        return text
    try:
        parse_pause(value if is_number else text)
    except ValueError as refused:
        problems.add(BAD_DURATION, node, f"{label}: {refused}")
        return None
    return write_seconds(round(value, 9)) if isinstance(value, int | float) else text


def _read_poll(label: str, node: Node, problems: Problems) -> Poll | None:
    if not isinstance(node, MapNode):
        message = f"{label} must be a map, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message, _POLL_HINT)
        return None
    words = _POLL.read(label, node, problems) or {}
    if "until" not in node.node_by_key and "until" not in find_meant(node, _POLL):
        problems.add(MISSING_KEY, node, f"{label} has no `until`", _POLL_HINT)
    return Poll(**{"until": "true", **_POLL.to_fields(words)})


_POLL_HINT = "write {until: result == 'done', every: 30s, within: 1h}"
_POLL = Vocabulary(
    "poll",
    {
        "until": Key(
            EXPRESSION,
            "An expression on `result`: once it is true, the job has finished.",
            ("result.state == 'done'",),
            "until",
        ),
        "every": Key(
            INTERVAL,
            "The pause between two executions (default: 30s); no worker is occupied in it.",
            ("10s", "5m"),
            "every_s",
        ),
        "within": Key(
            TIMEOUT,
            "The job fails if the expression is not true after this time.",
            ("1h",),
            "within_s",
        ),
    },
    required=("until",),
)

# Commands.


def _read_command(label: str, node: Node, problems: Problems) -> str | tuple[str, ...] | None:
    """Read a text for a shell, or a list of a program and its arguments."""
    if isinstance(node, MapNode):
        message = f"{label} must be a text or a list, not a map"
        problems.add(WRONG_SHAPE, node, message, _COMMAND_HINT)
        return None
    if not isinstance(node, ListNode):
        return read_template(label, node, problems)
    if not node.items:
        message = f"{label} is an empty list"
        problems.add(WRONG_SHAPE, node, message, _COMMAND_HINT)
    words = []
    for item in node.items:
        if isinstance(item, ScalarNode) and not item.is_null:
            words.append(template_of(item))
        else:
            hint = "each item is one argument: write several items, or quote a text with [ or {"
            if isinstance(item, ScalarNode):
                hint = f'if it is text, write it in quotes: "{item.text}"'
            message = f"an item of {label} must be text, not {say(item)}"
            problems.add(WRONG_SHAPE, item, message, hint)
    if words[:1] == [""]:
        message = f"the first item of {label} is empty, and names no program"
        problems.add(WRONG_SHAPE, node, message, _COMMAND_HINT)
    return tuple(words) or None


_COMMAND_HINT = "write a program and its arguments: [tar, -cf, data.tar, data]"


# Groups.


def _read_items(label: str, node: Node, problems: Problems) -> Any:
    if isinstance(node, ListNode):
        return read_data(label, node, problems)
    value = node.value if isinstance(node, ScalarNode) else None
    is_word = isinstance(value, str) and _WORD.fullmatch(value) is not None
    if isinstance(value, str) and value and not is_word:
        source = read_expression(label, node, problems)
        return None if source is None else as_template(source)
    hint = "write [a, b, c], or ${{ jobs.NAME.result }}"
    if type(value) is int:
        hint = f"to count: ${{{{ range({value}) }}}}"
    elif is_word:
        hint = f"write ${{{{ jobs.{value}.result }}}}, or ${{{{ inputs.{value} }}}}"
    message = f"{label} must be a list, or an expression that gives one, not {say(node)}"
    problems.add(WRONG_SHAPE, node, message, hint)
    return None


def read_environment(label: str, node: Node, problems: Problems) -> dict[str, str] | None:
    """Read a map of environment variables; numbers and flags keep their spelling."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of variables, not {say(node)}"
        problems.add(WRONG_SHAPE, node, message, "write NAME: value, one per line")
        return None
    environment = {}
    for name, inner in node.node_by_key.items():
        if not re.fullmatch(VARIABLE, name):
            hint = "letters, digits and _ only, no digit first"
            message = f"{name!r} cannot be the name of a variable"
            problems.add(BAD_NAME, node.key_by_key[name], message, hint)
        elif not isinstance(inner, ScalarNode) or (inner.is_null and inner.typed):
            message = f"{name} in {label} must be text, not {say(inner)}"
            hint = "write one text; an expression is quoted, and a list of values is x | json"
            problems.add(WRONG_SHAPE, inner, message, hint)
        else:
            environment[name] = "" if is_empty(inner) else template_of(inner)
    return environment


CALL = Shape(_read_call, {"type": "string", "pattern": f"^{CALLED.pattern}$"})
COMMAND = either(
    _read_command,
    TEXT.schema,
    {
        "type": "array",
        "prefixItems": [{**_ANY_TEXT, "not": {"const": ""}}],
        "items": _ANY_TEXT,
        "minItems": 1,
    },
    write=lambda command: command if isinstance(command, str) else list(command),
)
NAMES = either(
    read_names,
    {"type": ["string", "number", "boolean", "null"], "not": _SEVERAL_NAMES},
    {"type": "array", "items": {**_ANY_TEXT, "not": _SEVERAL_NAMES}},
    write=_write_names,
)
BLOCKS = either(
    _read_blocks,
    *NAMES.schema["anyOf"],
    {"type": "object", "additionalProperties": {"anyOf": [{"type": "null"}, _EDGE.schema()]}},
    write=_write_blocks,
)
TOLERANCE = either(
    _read_tolerance,
    {"type": "boolean"},
    {"type": "integer", "minimum": 0},
    _PERCENTAGE_TEXT,
    write=_write_tolerance,
)
APPROVAL = either(
    _read_approval,
    {"type": "boolean"},
    _APPROVAL.schema(),
    write=lambda approval: _APPROVAL.write(approval) or True,
)
SLEEP = Shape(
    _read_sleep,
    {
        "anyOf": [
            *DURATION.schema["anyOf"],
            {
                "type": "string",
                "pattern": r"\$\{\{|^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}[T ].*(Z|[+-][0-9:]+)\s*$",
            },
        ]
    },
)
POLL = Shape(_read_poll, _POLL.schema(), _POLL.write)
ITEMS = either(
    _read_items,
    {"type": "array"},
    {"type": "string", "minLength": 1, "not": {"pattern": f"^{_WORD.pattern}$"}},
)
ENVIRONMENT = Shape(
    read_environment,
    {
        "type": ["object", "null"],
        "patternProperties": {f"^{VARIABLE}$": {"type": [*_ANY_TEXT["type"], "null"]}},
        "additionalProperties": False,
    },
    dict,
)


# Retries: a number, or a map.


def _read_retries(label: str, node: Node, problems: Problems) -> Retry | None:
    if isinstance(node, MapNode):
        words = _RETRIES.read(label, node, problems) or {}
        if "max" not in node.node_by_key and "max" not in find_meant(node, _RETRIES):
            problems.add(MISSING_KEY, node, f"{label} has no `max`", "write {max: 3, backoff: 2s}")
        return Retry(**{"max": 0, **_RETRIES.to_fields(words)})
    if isinstance(node, ScalarNode) and isinstance(node.value, int):
        count = _read_max(label, node, problems)
        return None if count is None else Retry(count)
    message = f"{label} must be a whole number or a map, not {say(node)}"
    problems.add(WRONG_SHAPE, node, message, "write 3, or {max: 3, backoff: 2s}")
    return None


def _read_max(label: str, node: Node, problems: Problems) -> int | None:
    count = read_count(label, node, problems)
    if count is not None and count > MAX_RETRIES:
        message = f"{label} must be at most {MAX_RETRIES:,}, not {say(node)}"
        problems.add(
            RETRIES_OUT_OF_BOUNDS, node, message, "for work that never ends, schedule a workflow"
        )
        return None
    return count


def _number(read: Callable[[object], float]) -> Callable[[str, Node, Problems], float | None]:
    def reader(label: str, node: Node, problems: Problems) -> float | None:
        try:
            return read(node.value if isinstance(node, ScalarNode) else say(node))
        except ValueError as error:
            problems.add(
                RETRIES_OUT_OF_BOUNDS,
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
            problems.add(BAD_RETRY_CAUSE, item, message, CAUSE_HINT)
            continue
        try:
            causes.append(read_cause(item.text))
        except UnknownCause as error:
            problems.add(BAD_RETRY_CAUSE, item, f"{label} {error}", error.hint)
    return tuple(dict.fromkeys(causes))


_CAUSE = {"type": ["string", "integer"], "minimum": 1, "maximum": MAX_EXIT_CODE}
_CAUSES = either(
    _read_causes,
    _CAUSE,
    {"type": "array", "items": _CAUSE},
    write=lambda causes: [int(each) if each.isdigit() else each for each in causes],
)
_MAX = {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES}

RETRIES_MAX = Shape(_read_max, _MAX)

_RETRIES = Vocabulary(
    "retries",
    {
        "max": Key(or_expression(RETRIES_MAX), "How many times the job is retried.", (3,), "max"),
        "backoff": Key(DURATION, "The pause before the first retry.", ("2s",), "backoff_s"),
        "factor": Key(
            Shape(_number(read_factor), {"type": "number", "minimum": 1, "maximum": MAX_FACTOR}),
            "Each further pause is this many times as long as the one before it.",
            (2,),
            "factor",
        ),
        "max_backoff": Key(
            TIMEOUT, "The longest pause (default: a day).", ("5m",), "max_backoff_s"
        ),
        "jitter": Key(
            either(
                _number(read_share),
                {"type": "number", "minimum": 0, "maximum": 1},
                _PERCENTAGE_TEXT,
            ),
            "Lengthen each pause by a random part of up to this share.",
            (0.2, "20%"),
            "jitter",
        ),
        "within": Key(
            TIMEOUT,
            "No attempt begins later than this after the first one began.",
            ("1h",),
            "within_s",
        ),
        "on": Key(
            _CAUSES,
            "Retry only after these: exception classes, exit codes.",
            ("ConnectionError", ["requests.exceptions:Timeout", 137, "1-3"]),
            "on",
        ),
        "never_on": Key(
            _CAUSES,
            "Do not retry after these: exception classes, exit codes.",
            ("ValueError", [2, "64-78"]),
            "never_on",
        ),
    },
    required=("max",),
)

RETRIES = either(
    _read_retries,
    _MAX,
    _RETRIES.schema(),
    write=lambda r: r.max if r == Retry(r.max) else _RETRIES.write(r),
)
