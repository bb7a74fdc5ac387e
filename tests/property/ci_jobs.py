"""The `jobs` of a CI service as a flowq workflow: what somebody who moves over would write."""

from __future__ import annotations

import re
from typing import Any

import yaml

Jobs = dict[str, dict[str, Any]]

_INPUT_BY_CONTEXT = {"github.event_name": "inputs.event", "github.ref": "inputs.ref"}
_INPUTS: dict[str, dict[str, Any]] = {
    "event": {"default": "push"},
    "ref": {"default": "refs/heads/main"},
    "broken": {"type": "list", "default": []},
}
_STARTS_WITH = re.compile(r"startsWith\(([\w.]+), '([^']*)'\)")


def convert(name: str, jobs: Jobs) -> str:
    """Return a workflow in which each job prints its name, and fails if the input says so."""
    ours = {job: _job(job, said) for job, said in jobs.items()}
    inputs = {key: said for key, said in _INPUTS.items() if f"inputs.{key}" in str(ours)}
    return yaml.safe_dump({"name": name, "inputs": inputs, "jobs": ours}, sort_keys=False)


def _job(name: str, said: dict[str, Any]) -> dict[str, Any]:
    job: dict[str, Any] = {
        "call": f"{__name__}:work",
        "with": {"name": name, "broken": "${{ inputs.broken }}"},
    }
    if "needs" in said:
        job["needs"] = said["needs"]
    if "if" in said:
        job["if"] = _condition(str(said["if"]))
    if "continue-on-error" in said:
        job["continue_on_error"] = said["continue-on-error"]
    if "timeout-minutes" in said:
        job["timeout"] = f"{said['timeout-minutes']}m"
    return {**job, **_strategy(said.get("strategy", {}))}


def _strategy(said: dict[str, Any]) -> dict[str, Any]:
    if not said:
        return {}
    matrix = dict(said["matrix"])
    beside = {key: matrix.pop(key) for key in ("include", "exclude") if key in matrix}
    limit = {"max_parallel": said["max-parallel"]} if "max-parallel" in said else {}
    axes = {"matrix": matrix} if matrix else {}
    return {**axes, **beside, **limit, "fail_fast": said.get("fail-fast", True)}


def _condition(text: str) -> str:
    source = text.removeprefix("${{").removesuffix("}}").strip()
    for theirs, ours in _INPUT_BY_CONTEXT.items():
        source = source.replace(theirs, ours)
    source = _STARTS_WITH.sub(lambda m: f"{m[1]}[:{len(m[2])}] == '{m[2]}'", source)
    return source.replace("&&", "and").replace("||", "or").replace("!c", "not c")


def work(name: str, broken: list[str]) -> str:
    """What every job does."""
    if name in broken:
        raise RuntimeError(f"{name} is broken")
    return name
