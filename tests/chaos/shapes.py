"""Random graphs, each made of a seed and a number, so that every process knows them all.

A graph is submitted as a run (through a compiled plan) or job by job (through `Queue.enqueue`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from flowq.spec import Block, BlockerPolicy, Defaults, JobSpec, Retry, Workflow

CALL = "chaos_jobs:work"
QUEUE = "chaos"
SHAPES = ("fan_in", "chain", "diamond", "random", "nested", "shared", "adding")
PLAIN_EVERY = 8
"""Every so manieth graph goes through the plain API."""


@dataclass(frozen=True)
class Node:
    """One job. Shape: `needs` are earlier nodes; of those in `ignores` a failure does not matter.

    It raises in its first `fails` attempts. With `adds` = (depth, width) it adds that many children
    to its future job `adds_to`, each of which adds as many, until the depth is used up.
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


@dataclass(frozen=True)
class Graph:
    """What is submitted under one number. Shape: `nodes` in topological order."""

    seed: int
    number: int
    shape: str
    nodes: tuple[Node, ...]

    @property
    def is_plain(self) -> bool:
        """Whether it goes through `Queue.enqueue`, without a run."""
        return self.number % PLAIN_EVERY == PLAIN_EVERY - 1

    @property
    def id(self) -> str:
        """The id of its run, which its jobs' ids begin with."""
        return f"c{self.seed % 1_000_000:06d}{self.number:05d}"

    def job_id(self, name: str) -> str:
        """The id of the job made from a node."""
        return f"{self.id}-{name}"

    def after(self, name: str) -> list[Node]:
        """The nodes that the node `name` blocks."""
        return [node for node in self.nodes if name in node.needs]

    def is_future(self, node: Node) -> bool:
        """Whether the node is a future job: something precedes it, or nothing follows it."""
        return bool(node.needs) or not self.after(node.name)


def make_graph(seed: int, number: int) -> Graph:
    """Return graph `number` of the series that `seed` begins."""
    dice = random.Random(f"{seed}/{number}")
    shape = SHAPES[number % len(SHAPES)]
    needs = _needs(shape, dice)
    nodes = tuple(_node(name, before, dice) for name, before in needs.items())
    graph = Graph(seed, number, shape, nodes)
    return replace(graph, nodes=_with_adders(graph, dice)) if shape == "adding" else graph


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


def make_workflow(graph: Graph) -> Workflow:
    """Return the graph as a workflow that both ends of its edges declare."""
    jobs = tuple(_declare(graph, node) for node in graph.nodes)
    return Workflow(f"chaos-{graph.shape}", jobs, defaults=Defaults(queue=QUEUE))


def _declare(graph: Graph, node: Node) -> JobSpec:
    ignoring = [after.name for after in graph.after(node.name) if node.name in after.ignores]
    return JobSpec(
        node.name,
        CALL,
        arguments(graph, node),
        needs=tuple(name for name in node.needs if name not in node.ignores),
        blocks=tuple(Block(name, "ignore") for name in ignoring),
        retries=Retry(node.retries, node.backoff_s) if node.retries else None,
        on_blocker_failure=node.policy,
        deferred=any(each.adds_to == node.name for each in graph.nodes),
    )


def arguments(graph: Graph, node: Node) -> dict[str, object]:
    """Return what the node's job is called with."""
    adds_to = graph.job_id(node.adds_to) if node.adds_to else ""
    given = {"seconds": node.seconds, "fails": node.fails, "retries": node.retries}
    return {**given, "adds": list(node.adds), "adds_to": adds_to}


def count_children(adds: tuple[int, int]) -> int:
    """Return how many descendants an adder has in the end."""
    depth, width = adds
    return sum(width**level for level in range(1, depth + 1))
