"""Random workflows whose jobs can be executed, as documents in YAML's shape.

Some of their jobs fail, for good or until an attempt; what follows from that is the point. Nothing
in them depends on time, or on which of several jobs runs first.
"""

from __future__ import annotations

import random
from typing import Any

CONDITIONS = (
    "always()", "failure()", "success()", "not failure()", "canceled()", "inputs.size > 2",
    "always() and inputs.size < 3", "failure() or inputs.size > 2",
)  # fmt: skip


def make(seed: int) -> dict[str, Any]:
    """Return the document of a workflow."""
    dice = random.Random(seed)
    document = _workflow(dice, depth=2)
    _add_starts(random.Random(f"starts of {seed}"), document)
    return {"inputs": {"size": {"default": dice.randint(1, 4), "type": "int"}}, **document}


def _workflow(dice: random.Random, depth: int) -> dict[str, Any]:
    names = [f"j{number}" for number in range(dice.randint(2, 6 if depth == 2 else 3))]
    nested: dict[str, Any] = {}
    jobs: dict[str, Any] = {}
    for at, name in enumerate(names):
        jobs[name] = _job(dice, name, names[:at], jobs, nested, depth)
    _add_branches(dice, names, jobs)
    document: dict[str, Any] = {"jobs": jobs}
    if dice.random() < 0.25:
        final = _call(dice)
        if dice.random() < 0.5:
            final["if"] = dice.choice(CONDITIONS)
        document["finally"] = {"last": final}
    if nested:
        document["workflows"] = nested
    if dice.random() < 0.2:
        document["defaults"] = {"on_blocker_failure": dice.choice(["skip", "run"])}
    document["outputs"] = {"one": f"${{{{ jobs.{dice.choice(names)}.status }}}}"}
    return document


def _call(dice: random.Random) -> dict[str, Any]:
    with_: dict[str, Any] = {"value": dice.choice([0, "a", [1, 2], None, {"x": []}])}
    job: dict[str, Any] = {"call": "answering_jobs:answer", "with": with_}
    if dice.random() < 0.4:
        with_["fails_until"] = dice.choice([1, 2, 9])
        with_["attempt"] = "${{ attempt }}"
        if dice.random() < 0.6:
            retries: dict[str, Any] = {"max": dice.choice([1, 2])}
            kind = dice.choice(["on", "never_on", ""])
            if kind:
                retries[kind] = dice.choice([["answering_jobs:Refused"], ["OSError"]])
            job["retries"] = retries
    return job


def _job(
    dice: random.Random,
    name: str,
    earlier: list[str],
    jobs: dict[str, Any],
    nested: dict[str, Any],
    depth: int,
) -> dict[str, Any]:
    kind = dice.random()
    if depth and kind < 0.2:
        inner = f"w{name}"
        nested[inner] = {
            "inputs": {"size": {"type": "int"}},
            **_workflow(dice, depth - 1),
        }
        job: dict[str, Any] = {"workflow": inner, "with": {"size": "${{ inputs.size }}"}}
        if dice.random() < 0.3:
            job["retries"] = 1
    elif kind < 0.3:
        job = {"run": dice.choice(["echo a", "exit 3", "echo '[1, 2]'"])}
    else:
        job = _call(dice)
    if dice.random() < 0.3:
        _make_group(dice, job, earlier, jobs)
    needs = dice.sample(earlier, min(len(earlier), dice.choice([0, 1, 1, 2])))
    if needs:
        job["needs"] = needs
        if dice.random() < 0.3:
            job["if"] = dice.choice(CONDITIONS)
        elif dice.random() < 0.3:
            job["on_blocker_failure"] = dice.choice(["skip", "run"])
        if "with" in job and "call" in job and dice.random() < 0.4:
            each = dice.choice(needs)
            is_group = "for_each" in jobs[each] or "matrix" in jobs[each]
            part = "outcomes | len" if is_group else "status"
            job["with"]["seen"] = f"${{{{ jobs.{each}.{part} }}}}"
    if dice.random() < 0.25:
        job["continue_on_error"] = True
    return job


def _add_branches(dice: random.Random, names: list[str], jobs: dict[str, Any]) -> None:
    """Give some jobs with an `if` an `else`: a later job, or none."""
    taken: set[str] = set()
    for at, name in enumerate(names):
        if "if" not in jobs[name] or dice.random() < 0.5:
            continue
        later = [each for each in names[at + 1 :] if each not in taken]
        jobs[name]["else"] = dice.choice([*later, "skip"])
        taken.add(jobs[name]["else"])


def _add_starts(dice: random.Random, document: dict[str, Any]) -> None:
    """Let some jobs start at the first success or failure before them.

    Not those that ask how these have ended, nor in branches, which do: that depends on time.
    """
    jobs = document["jobs"]
    for nested in document.get("workflows", {}).values():
        _add_starts(dice, nested)
    if any("else" in job for job in jobs.values()):
        return
    for job in jobs.values():
        others = {"for_each", "matrix", "on_blocker_failure"} & job.keys()
        asks = "seen" in job.get("with", {})
        if "needs" in job and not others and not asks and dice.random() < 0.25:
            job["start_when"] = dice.choice(["one_success", "one_failed"])


def _make_group(
    dice: random.Random, job: dict[str, Any], earlier: list[str], jobs: dict[str, Any]
) -> None:
    if "with" in job and dice.random() < 0.3:
        job["matrix"] = {"a": [1, 2], "b": dice.choice([["x"], ["x", "y"]])}
        return
    lists: list[Any] = [[], [1], [1, 2, 3]]
    singles = [each for each in earlier if not {"for_each", "matrix"} & jobs[each].keys()]
    if singles:
        name = dice.choice(singles)
        lists.append(f"${{{{ [jobs.{name}.status, 1] }}}}")
    job["for_each"] = dice.choice(lists)
    if "call" in job and "fails_until" in job["with"] and dice.random() < 0.5:
        job["with"]["fails_until"] = "${{ 9 if index == 1 else 0 }}"
