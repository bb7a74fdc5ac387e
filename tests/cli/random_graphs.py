"""Random graphs of jobs as YAML, with every edge written in one of the ways there are."""

from __future__ import annotations

import random

import yaml

WAYS = ("needs", "blocks", "both", "blocked_by", "whole", "part")


def write(seed: int, size: int) -> tuple[str, dict[str, set[str]]]:
    """Return a workflow as YAML, and the predecessors of each of its jobs, by name."""
    dice = random.Random(seed)
    names = [f"job{number}" for number in range(size)]
    before = {name: _choose(dice, names[:place]) for place, name in enumerate(names)}
    jobs = {name: _job(name) for name in names}
    for name, predecessors in before.items():
        for predecessor in sorted(predecessors):
            _add_edge(jobs, predecessor, name, dice.choice(WAYS))
    dice.shuffle(names)
    document = {
        "name": f"random-{seed}",
        "inputs": {"file": {"type": "path"}},
        "jobs": {name: jobs[name] for name in names},
    }
    return yaml.safe_dump(document, sort_keys=False), before


def _choose(dice: random.Random, earlier: list[str]) -> set[str]:
    """Choose mostly few predecessors, sometimes all that there are."""
    if dice.random() < 0.05:
        return set(earlier)
    return set(dice.sample(earlier, min(len(earlier), dice.choice([0, 1, 1, 2, 2, 3]))))


def _job(name: str) -> dict[str, object]:
    return {
        "call": "kitchen:leave_a_mark",
        "with": {"file": "${{ inputs.file }}", "name": name, "seen": {}},
    }


def _add_edge(jobs: dict[str, dict], predecessor: str, name: str, way: str) -> None:
    result = f"${{{{ jobs.{predecessor}.result }}}}"
    match way:
        case "needs":
            jobs[name].setdefault("needs", []).append(predecessor)
        case "blocks":
            jobs[predecessor].setdefault("blocks", []).append(name)
        case "both":
            _add_edge(jobs, predecessor, name, "needs")
            _add_edge(jobs, predecessor, name, "blocks")
        case "blocked_by":
            jobs[predecessor].setdefault("blocked_by", []).append(name)
            jobs[name]["deferred"] = True
        case "whole":
            jobs[name]["with"]["seen"][predecessor] = result
        case "part":
            jobs[name]["with"]["seen"][predecessor] = f"it was {result}"
