"""One play from the first kill to the last count: what happens, what is known, what is left."""

from __future__ import annotations

import time
from typing import Any

from flowq.runtime import runs
from flowq.runtime.job import Job
from flowq.runtime.maintenance import tidy
from tests.chaos.director import Director, wait_until
from tests.chaos.evidence import (
    Evidence,
    Kill,
    find_keys,
    find_leftovers,
    pair,
    read_graph,
    read_lines,
)
from tests.chaos.shapes import QUEUE, make_graph

ENDS_WITHIN_S = 90.0


def play(director: Director, graphs: int) -> bool:
    """Let the chaos reign until so many graphs are submitted; whether all then came to an end."""
    director.raise_curtain()
    while director.count_submitted() < graphs:
        director.look_after()
        director.kill_somebody()
        time.sleep(0.05)
    director.end_clients()

    def has_ended() -> bool:
        director.look_after()
        return not director.find_unfinished()

    return wait_until(has_ended, ENDS_WITHIN_S)


def collect(director: Director) -> Evidence:
    """Read everything that is known, before anything is removed."""
    evidence = Evidence()
    evidence.executions = pair(read_lines(director.log))
    evidence.kills = [Kill(**line) for line in read_lines(director.folder / "kills")]
    told: dict[str, list[dict[str, Any]]] = {}
    for line in read_lines(director.journal):
        told.setdefault(line["graph"], []).append(line)
    for graph_id, lines in told.items():
        graph = make_graph(director.seed, lines[0]["number"])
        seen = [job for job in evidence.executions if job.startswith(f"{graph_id}-")]
        evidence.graphs.append(read_graph(graph, lines, director.connection, seen))
    evidence.leftovers = find_leftovers(director.connection, QUEUE) + director.notes
    return evidence


def clear(director: Director, evidence: Evidence) -> list[str]:
    """Remove every run and every job as their owner would; return the keys that are left."""
    for facts in evidence.graphs:
        if facts.state:
            runs.remove(facts.graph.id, director.connection)
        for job_id in facts.jobs if facts.graph.is_plain else ():
            Job.fetch(job_id, connection=director.connection).delete()
    tidy(director.connection)
    return find_keys(director.connection)
