"""Random graphs, each made of a seed and a number, so that every process knows them all.

A graph is submitted as a run (through a compiled plan) or job by job (through `Queue.enqueue`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from flowq.spec import Block, BlockerPolicy, Defaults, JobSpec, Retry, StartWhen, Workflow

CALL = "chaos_jobs:work"
QUEUE = "chaos"
SHAPES = ("fan_in", "chain", "diamond", "random", "nested", "shared", "adding")
ENDINGS = ("finally", "late", "rounds", "policies", "first")
"""Shapes that only a workflow can have: jobs under `finally`, deadlines, nested workflows that run
again, policies of retries, and jobs that do not wait for all before them."""

ENDING_EVERY = 3
FIRST_AT = 4
FIRST_EVERY = 12
PLAIN_EVERY = 8
"""Every so manieth graph goes through the plain API."""

PLANNED = f"{CALL.partition(':')[0]}:PlannedFailure"
SLEEPS_S = 30.0
"""What takes so long is stopped by a deadline before."""

ALWAYS = 99
"""So many attempts fail of what is not to be tried again."""


@dataclass(frozen=True)
class Node:
    """One job. Shape: `needs` are earlier nodes; of those in `ignores` a failure does not matter.

    It raises in its first `fails` attempts. With `adds` = (depth, width) it adds that many children
    to its future job `adds_to`, each of which adds as many, until the depth is used up.

    What is `inside` of another one, a nested workflow, has the name of that in front of its own. Of
    a nested workflow `retries` are its rounds; a job in it raises in its first `fails_rounds`. One
    that `is_final` stands under `finally`. `raises` is a name of `chaos_jobs.RAISED`. One with
    `start_when` does not wait for all it needs; if it `cancels`, it ends what it has not waited
    for.
    """

    name: str
    needs: tuple[str, ...] = ()
    ignores: frozenset[str] = frozenset()
    policy: BlockerPolicy = "skip"
    seconds: float = 0.0
    fails: int = 0
    retries: int = 0
    backoff_s: int = 0
    adds: tuple[int, int] = (0, 0)
    adds_to: str = ""
    inside: str = ""
    is_workflow: bool = False
    is_final: bool = False
    timeout_s: float | None = None
    fails_rounds: int = 0
    raises: str = "failure"
    on: tuple[str, ...] = ()
    never_on: tuple[str, ...] = ()
    start_when: StartWhen | None = None
    cancels: bool = False

    @property
    def is_tried_once(self) -> bool:
        """Whether its failure is final, for all of its retries."""
        is_named = not self.on or PLANNED in self.on
        return self.raises == "refusal" or PLANNED in self.never_on or not is_named


@dataclass(frozen=True)
class Graph:
    """What is submitted under one number. Shape: `nodes` in topological order."""

    seed: int
    number: int
    shape: str
    nodes: tuple[Node, ...]
    timeout_s: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it goes through `Queue.enqueue`, without a run."""
        return self.number % PLAIN_EVERY == PLAIN_EVERY - 1

    @property
    def id(self) -> str:
        """The id of its run, which its jobs' ids begin with."""
        return f"c{self.seed % 1_000_000:06d}{self.number:05d}"

    @property
    def has_deadline(self) -> bool:
        """Whether it, or a nested workflow in it, may take only so long.

        A job is stopped then; one whose worker is silent is taken away from it, and canceled.
        """
        return self.timeout_s is not None or any(node.timeout_s for node in self.nodes)

    def job_id(self, name: str) -> str:
        """The id of the job made from a node."""
        return f"{self.id}-{name}"

    def after(self, name: str) -> list[Node]:
        """The nodes that the node `name` blocks."""
        return [node for node in self.nodes if name in node.needs]

    def inside(self, name: str) -> list[Node]:
        """The nodes of the nested workflow `name`; those of the graph itself for ""."""
        return [node for node in self.nodes if node.inside == name]

    def is_helper(self, job_id: str) -> bool:
        """Whether flowq itself executes the job: it begins or ends a nested workflow."""
        joins = [self.job_id(node.name) for node in self.nodes if node.is_workflow]
        return job_id in joins or any(job_id == f"{join}--0" for join in joins)

    def is_future(self, node: Node) -> bool:
        """Whether the node is a future job: something precedes it, or nothing follows it."""
        return bool(node.needs) or not self.after(node.name)


def make_graph(seed: int, number: int) -> Graph:
    """Return graph `number` of the series that `seed` begins."""
    dice = random.Random(f"{seed}/{number}")
    shape = _shape(number)
    if shape in ENDINGS:
        return _ENDINGS[shape](Graph(seed, number, shape, ()), dice)
    needs = _needs(shape, dice)
    nodes = tuple(_node(name, before, dice) for name, before in needs.items())
    graph = Graph(seed, number, shape, nodes)
    return replace(graph, nodes=_with_adders(graph, dice)) if shape == "adding" else graph


def _shape(number: int) -> str:
    is_plain = number % PLAIN_EVERY == PLAIN_EVERY - 1
    if number % FIRST_EVERY == FIRST_AT:
        return "first"
    endings, at = divmod(number, ENDING_EVERY)
    if at == ENDING_EVERY - 1 and not is_plain:
        plain_before = (endings + 1) // PLAIN_EVERY
        return ENDINGS[(endings - plain_before) % (len(ENDINGS) - 1)]  # but for "first"
    return SHAPES[(number - endings) % len(SHAPES)]


def _needs(shape: str, dice: random.Random) -> dict[str, tuple[str, ...]]:
    """Return what each node needs, by name, in topological order."""
    if shape in ("fan_in", "adding"):
        first = [f"a{i}" for i in range(dice.randint(2, 8))]
        return {**dict.fromkeys(first, ()), "last": tuple(first)}
    if shape == "chain":
        names = [f"a{i}" for i in range(dice.randint(2, 6))]
        return {name: tuple(names[i - 1 : i]) for i, name in enumerate(names)}
    if shape == "diamond":
        sides = [f"b{i}" for i in range(dice.randint(2, 4))]
        return {"first": (), **dict.fromkeys(sides, ("first",)), "last": tuple(sides)}
    if shape == "nested":
        return _nested(dice)
    if shape == "shared":
        first = [f"a{i}" for i in range(dice.randint(2, 4))]
        futures = {f"f{i}": tuple(first) for i in range(dice.randint(2, 3))}
        return {**dict.fromkeys(first, ()), **futures}
    names = [f"r{i}" for i in range(dice.randint(3, 10))]
    return {
        name: tuple(each for each in names[:i] if dice.random() < 0.35)
        for i, name in enumerate(names)
    }


def _nested(dice: random.Random) -> dict[str, tuple[str, ...]]:
    needs: dict[str, tuple[str, ...]] = {}
    inner = []
    for i in range(dice.randint(2, 3)):
        leaves = [f"a{i}{j}" for j in range(dice.randint(1, 3))]
        needs.update(dict.fromkeys(leaves, ()))
        needs[f"f{i}"] = tuple(leaves)
        inner.append(f"f{i}")
    return {**needs, "last": tuple(inner)}


def _node(name: str, needs: tuple[str, ...], dice: random.Random) -> Node:
    retries = dice.choice([0, 1, 3, 3])
    fails = dice.choice([0] * 9 + [1, 1, 2])
    return Node(
        name,
        needs,
        ignores=frozenset(each for each in needs if dice.random() < 0.15),
        policy=dice.choice(["skip", "skip", "run"]),
        seconds=dice.choice([0.0, 0.01, 0.03, 0.05, 0.2, 0.6]),
        fails=fails,
        retries=retries,
        backoff_s=dice.choice([0, 0, 1]),
    )


def _with_adders(graph: Graph, dice: random.Random) -> tuple[Node, ...]:
    nodes = list(graph.nodes)
    for at in range(dice.randint(1, 2)):
        depth, width = dice.choice([(1, 3), (2, 2), (3, 1)])
        nodes[at] = replace(nodes[at], adds=(depth, width), adds_to="last", retries=3)
    return tuple(nodes)


# Shapes that only a workflow can have ------------------------------------------------------------


def _finally(graph: Graph, dice: random.Random) -> Graph:
    nodes = [_node(name, needs, dice) for name, needs in _needs("random", dice).items()]
    return replace(graph, nodes=(*nodes, *_finals(dice)))


def _finals(dice: random.Random, inside: str = "") -> Iterator[Node]:
    """Yield one or two jobs under `finally`."""
    start = f"{inside}--" if inside else ""
    names = [f"{start}z{i}" for i in range(dice.randint(1, 2))]
    for at, name in enumerate(names):
        needs = tuple(names[:at]) if dice.random() < 0.5 else ()
        node = _node(name, needs, dice)
        yield replace(node, policy="skip", is_final=True, inside=inside)


def _late(graph: Graph, dice: random.Random) -> Graph:
    """Make one that a deadline ends: that of the run, or that of a nested workflow."""
    timeout_s = float(dice.randint(1, 2))
    if dice.random() < 0.5:
        slow = Node("slow", ("a",), seconds=SLEEPS_S, retries=3)
        nodes = (Node("a"), slow, Node("after", ("slow",)), *_finals(dice))
        return replace(graph, nodes=nodes, timeout_s=timeout_s)
    rounds, policy = dice.randint(0, 1), dice.choice(["skip", "run"])
    nodes = (
        Node("w--a", inside="w"),
        Node("w--slow", ("w--a",), seconds=SLEEPS_S, retries=3, inside="w"),
        *_finals(dice, "w"),
        Node("w", is_workflow=True, timeout_s=timeout_s, retries=rounds),
        Node("after", ("w",), policy=policy),
        *_finals(dice),
    )
    return replace(graph, nodes=nodes)


def _rounds(graph: Graph, dice: random.Random) -> Graph:
    """Make a nested workflow that runs again, with what it takes or not."""
    fails_rounds, policy = dice.choice([0, 1, 1, 2, 3]), dice.choice(["skip", "run"])
    nodes = (
        Node("w--a", inside="w"),
        Node("w--r", seconds=0.05, fails_rounds=fails_rounds, inside="w"),
        Node("w--s", ("w--a", "w--r"), inside="w"),
        *(_finals(dice, "w") if dice.random() < 0.5 else ()),
        Node("w", is_workflow=True, retries=dice.randint(1, 2), backoff_s=dice.choice([0, 0, 1])),
        Node("after", ("w",), policy=policy),
        *(_finals(dice) if dice.random() < 0.5 else ()),
    )
    return replace(graph, nodes=nodes)


def _policies(graph: Graph, dice: random.Random) -> Graph:
    """Make one of jobs that are tried again or not, by what they raise."""
    tried = {"retries": 3, "seconds": 0.05}
    kinds = {
        "refused": Node("refused", fails=ALWAYS, raises="refusal", **tried),
        "never": Node("never", fails=ALWAYS, never_on=(PLANNED,), **tried),
        "other": Node("other", fails=ALWAYS, on=("KeyError",), **tried),
        "named": Node("named", fails=dice.randint(1, 2), on=(PLANNED, "KeyError"), **tried),
        "later": Node("later", fails=1, raises="delay", **tried),
    }
    chosen = dice.sample(sorted(kinds), dice.randint(2, 4))
    last = Node("last", tuple(chosen), policy=dice.choice(["skip", "run"]))
    return replace(graph, nodes=(*(kinds[each] for each in chosen), last))


def _first(graph: Graph, dice: random.Random) -> Graph:
    """Make one with a job that starts at the first success or failure of several."""
    racers = [_node(f"a{i}", (), dice) for i in range(dice.randint(2, 5))]
    racers = [replace(each, fails=dice.choice([0, 0, 1, ALWAYS])) for each in racers]
    names = tuple(node.name for node in racers)
    rule = dice.choice(["one_success", "one_success", "one_failed"])
    first = Node("first", names, seconds=0.05, retries=3, start_when=rule)
    nodes = (
        *racers,
        replace(first, cancels=dice.random() < 0.6),
        Node("after", ("first",), policy=dice.choice(["skip", "skip", "run"])),
        *([Node("other", names[:1], policy="run")] if dice.random() < 0.4 else ()),
        *(_finals(dice) if dice.random() < 0.3 else ()),
    )
    return replace(graph, nodes=nodes)


_ENDINGS: Mapping[str, Callable[[Graph, random.Random], Graph]] = {
    "finally": _finally,
    "late": _late,
    "rounds": _rounds,
    "policies": _policies,
    "first": _first,
}


# Workflows ---------------------------------------------------------------------------------------


def make_workflow(graph: Graph) -> Workflow:
    """Return the graph as a workflow that both ends of its edges declare."""
    defaults = Defaults(queue=QUEUE)
    nested = {
        node.name: Workflow(node.name, _declare_all(graph, node.name), defaults=defaults)
        for node in graph.nodes
        if node.is_workflow
    }
    name, jobs = f"chaos-{graph.shape}", _declare_all(graph, "")
    return Workflow(name, jobs, defaults=defaults, workflows=nested, timeout_s=graph.timeout_s)


def _declare_all(graph: Graph, inside: str) -> tuple[JobSpec, ...]:
    return tuple(_declare(graph, node) for node in graph.inside(inside))


def _declare(graph: Graph, node: Node) -> JobSpec:
    ignoring = [after.name for after in graph.after(node.name) if node.name in after.ignores]
    retries = Retry(node.retries, node.backoff_s, on=node.on, never_on=node.never_on)
    has_no_policy = node.is_workflow or node.is_final or node.start_when is not None
    return JobSpec(
        _own_name(node.name),
        "" if node.is_workflow else CALL,
        {} if node.is_workflow else arguments(graph, node),
        needs=tuple(_own_name(name) for name in node.needs if name not in node.ignores),
        blocks=tuple(Block(_own_name(name), "ignore") for name in ignoring),
        retries=retries if node.retries else None,
        on_blocker_failure=None if has_no_policy else node.policy,
        start_when=node.start_when,
        cancel_rest=node.cancels or None,
        deferred=any(each.adds_to == node.name for each in graph.nodes),
        workflow=node.name if node.is_workflow else "",
        timeout_s=node.timeout_s,
        is_final=node.is_final,
    )


def _own_name(name: str) -> str:
    return name.rpartition("--")[2]


def arguments(graph: Graph, node: Node) -> dict[str, object]:
    """Return what the node's job is called with."""
    adds_to = graph.job_id(node.adds_to) if node.adds_to else ""
    given = {"seconds": node.seconds, "fails": node.fails, "retries": node.retries}
    ends = {"raises": node.raises, "fails_rounds": node.fails_rounds}
    return {**given, **ends, "adds": list(node.adds), "adds_to": adds_to}


def count_children(adds: tuple[int, int]) -> int:
    """Return how many descendants an adder has in the end."""
    depth, width = adds
    return sum(width**level for level in range(1, depth + 1))
