"""From nodes to values: one reader per shape, which notes what does not have that shape.

A reader gets the key that it reads for (for its messages), the node, and the problems so far. It
returns None for what it could not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from flowq.declare.durations import parse_duration
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.expressions import find_references
from flowq.nearest import did_you_mean
from flowq.spec import Block, BlockerPolicy, Retry

MAX_DURATION_S = 3_650 * 86_400

Reader = Callable[[str, Node, Problems], Any]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The keys of one kind of map.

    Shape: `what` names the kind; readers by key; `later` are keys of a coming version; `foreign`
    has advice by word of another tool.
    """

    what: str
    reader_by_key: Mapping[str, Reader]
    later: frozenset[str] = frozenset()
    foreign: Mapping[str, str] = field(default_factory=dict)

    def read(self, label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
        """Return the values by key, without those that are missing or wrong."""
        if is_empty(node):
            return None
        if not isinstance(node, MapNode):
            hint = f"its keys are {', '.join(self.reader_by_key)}"
            problems.add("FQ105", node, f"{label} must be a map, not {say(node)}", hint)
            return None
        values = {}
        for key, inner in node.node_by_key.items():
            if key in self.reader_by_key:
                values[key] = self.reader_by_key[key](key, inner, problems)
            else:
                self._refuse(node.key_by_key[key], problems)
        return {key: value for key, value in values.items() if value is not None}

    def _refuse(self, key: ScalarNode, problems: Problems) -> None:
        word = key.text
        if word in self.foreign:
            message = f"{self.what} has no key {word!r}"
            problems.add("FQ108", key, message, self.foreign[word])
        elif word in self.later:
            problems.add("FQ107", key, f"{word!r} is not supported yet in this version")
        else:
            hint = did_you_mean(word, self.reader_by_key)
            problems.add("FQ103", key, f"unknown key {word!r} in {self.what}", hint)


def is_empty(node: Node) -> bool:
    """Whether nothing, or null, was written."""
    return isinstance(node, ScalarNode) and node.value is None


def say(node: Node) -> str:
    """Return what a node is, in a few words."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a map"
    value = node.value
    if value is None:
        return "nothing"
    if isinstance(value, bool | int | float):
        return f"{node.text:.40}"
    return f"{value!r}" if len(value) <= 40 else f"{value[:39]!r}…"


def read_node(label: str, node: Node, problems: Problems) -> Node:
    """Return the node itself, for what can be read only when more is known."""
    return node


def read_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text; a number or a word keeps the text that was written: `3.10`, `on`."""
    if not isinstance(node, ScalarNode) or node.value in (None, ""):
        problems.add("FQ105", node, f"{label} must be text, not {say(node)}")
        return None
    return node.text


def read_fixed_text(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text in which nothing is filled in."""
    text = read_text(label, node, problems)
    if text is not None and "${{" in text:
        hint = "expressions are filled in under `with` only"
        problems.add("FQ105", node, f"{label} must be fixed text, without ${{{{ }}}}", hint)
        return None
    return text


def read_description(label: str, node: Node, problems: Problems) -> str | None:
    """Read a text that may be empty."""
    if isinstance(node, ScalarNode) and node.value in (None, ""):
        return ""
    return read_text(label, node, problems)


def read_flag(label: str, node: Node, problems: Problems) -> bool | None:
    """Read true or false, which YAML 1.2 spells in no other way."""
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool):
        return value
    message = f"{label} must be true or false, not {say(node)}"
    problems.add("FQ105", node, message, "in YAML 1.2 these two words only, without quotes")
    return None


def read_duration(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration. Units: seconds."""
    try:
        seconds = parse_duration(node.value if isinstance(node, ScalarNode) else None)
    except ValueError:
        message = f"{label} must be a duration, not {say(node)}"
        problems.add("FQ110", node, message, "write it as 500ms, 30s, 10m, 2h, 1d, or in seconds")
        return None
    if seconds > MAX_DURATION_S:
        problems.add("FQ110", node, f"{label} must be at most 3650d, not {say(node)}")
        return None
    return seconds


def read_timeout(label: str, node: Node, problems: Problems) -> float | None:
    """Read a duration that is not zero. Units: seconds."""
    seconds = read_duration(label, node, problems)
    if seconds == 0:
        hint = "leave it out for no timeout of its own"
        problems.add("FQ110", node, f"{label} must be more than nothing", hint)
        return None
    return seconds


def read_count(label: str, node: Node, problems: Problems) -> int | None:
    """Read a whole number from 0."""
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    problems.add("FQ105", node, f"{label} must be a whole number from 0, not {say(node)}")
    return None


_RETRIES = Vocabulary("retries", {"max": read_count, "backoff": read_duration})


def read_retries(label: str, node: Node, problems: Problems) -> Retry | None:
    """Read `3` or `{max: 3, backoff: 2s}`."""
    if isinstance(node, MapNode):
        values = _RETRIES.read(label, node, problems) or {}
        if "max" not in node.node_by_key:
            problems.add("FQ106", node, f"{label} has no `max`", "write {max: 3, backoff: 2s}")
        return Retry(values.get("max", 0), values.get("backoff", 0))
    if isinstance(node, ScalarNode) and isinstance(node.value, int):
        count = read_count(label, node, problems)
        return None if count is None else Retry(count)
    message = f"{label} must be a whole number or a map, not {say(node)}"
    problems.add("FQ105", node, message, "write 3, or {max: 3, backoff: 2s}")
    return None


def read_policy(label: str, node: Node, problems: Problems) -> BlockerPolicy | None:
    """Read what a job does when a blocker did not succeed."""
    for policy in get_args(BlockerPolicy):
        if isinstance(node, ScalarNode) and node.value == policy:
            return policy  # type: ignore[no-any-return]  # get_args forgets what it came from
    choices = ", ".join(get_args(BlockerPolicy))
    problems.add("FQ105", node, f"{label} must be one of {choices}, not {say(node)}")
    return None


def read_names(label: str, node: Node, problems: Problems) -> tuple[str, ...]:
    """Read a name or a list of names; one that stands there twice counts once."""
    return tuple(dict.fromkeys(_names(label, node, problems)))


def read_blocks(label: str, node: Node, problems: Problems) -> tuple[Block, ...]:
    """Read a name, a list of names, or a map with a policy for each edge."""
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


def _names(label: str, node: Node, problems: Problems) -> Iterator[str]:
    if is_empty(node):
        return
    items = node.items if isinstance(node, ListNode) else [node]
    for item in items:
        if not isinstance(item, ScalarNode) or is_empty(item):
            message = f"{label} must be a job's name, or a list of names, not {say(item)}"
            problems.add("FQ105", item, message)
        elif "," in item.text or " " in item.text:
            hint = f"write a list: [{', '.join(item.text.replace(',', ' ').split())}]"
            message = f"{label} must be a job's name, or a list of names, not {say(item)}"
            problems.add("FQ105", item, message, hint)
        else:
            yield item.text


def _read_edge_policy(label: str, node: Node, problems: Problems) -> str | None:
    if isinstance(node, ScalarNode) and node.value == "ignore":
        return "ignore"
    hint = "for all blockers of a job, say on_blocker_failure there"
    problems.add("FQ105", node, f"{label} of an edge must be ignore, not {say(node)}", hint)
    return None


_EDGE = Vocabulary("an edge", {"on_failure": _read_edge_policy})


def read_arguments(label: str, node: Node, problems: Problems) -> dict[str, Any] | None:
    """Read the arguments of a call: plain data, with expressions that can be read."""
    if is_empty(node):
        return {}
    if not isinstance(node, MapNode):
        message = f"{label} must be a map of arguments, not {say(node)}"
        problems.add("FQ105", node, message, "write argument: value, each on its line")
        return None
    _check_expressions(node, problems)
    data: dict[str, Any] = to_data(node)
    return data


def to_data(node: Node) -> Any:
    """Return a node as plain data."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [to_data(item) for item in node.items]
    return {key: to_data(inner) for key, inner in node.node_by_key.items()}


def _check_expressions(node: Node, problems: Problems) -> None:
    if isinstance(node, ScalarNode):
        if "${{" not in node.text:
            return
        for problem in find_references(node.text).problems:
            problems.take(problem, node)
    elif isinstance(node, ListNode):
        for item in node.items:
            _check_expressions(item, problems)
    else:
        for key, inner in node.node_by_key.items():
            if "${{" in key:
                hint = "expressions are filled in in values only"
                problems.add("FQ105", node.key_by_key[key], "a key cannot hold ${{ }}", hint)
            _check_expressions(inner, problems)
