"""What is known after the chaos: what the jobs, the killer and the clients wrote, and Redis."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from redis import Redis
from rq.utils import as_text

from flowq.errors import RunNotFound
from flowq.runtime import keys, runs
from tests.chaos.shapes import Graph


@dataclass(frozen=True)
class Execution:
    """One call of a job's function. Units: instants on the system's monotonic clock."""

    job_id: str
    generation: int
    pid: int
    parent: int
    worker: str
    started_at: float
    ended_at: float | None = None
    how: str = ""
    """end, raise, or nothing when it never came to its end."""
    text: str = ""


@dataclass(frozen=True)
class Kill:
    """One SIGKILL. `kind`: worker, child, nursery, client, server, tracker."""

    kind: str
    pid: int
    at: float
    worker: str = ""
    back_s: float | None = None
    """How long the server was away."""


@dataclass(frozen=True)
class JobFacts:
    """A job as Redis has it in the end. Shape: `blocks` by future job: whether failures matter.

    One that `needs_success` asks about all jobs before it, and not only about its blockers.
    """

    job_id: str
    status: str
    outcome: str
    generation: int
    crashes: int
    is_future: bool
    policy: str
    blocks: Mapping[str, bool]
    needs_success: bool = False


@dataclass(frozen=True)
class Transition:
    """One line of a run's log. Shape: `worker` is who has started the job."""

    job_id: str
    state: str
    reason: str
    worker: str = ""


@dataclass(frozen=True)
class GraphFacts:
    """A graph as it is in the end. `state` is "" when nothing is left of it, or for a plain one."""

    graph: Graph
    told: tuple[str, ...]
    """What the client has written about it."""
    told_at: float
    """When it wrote the last line about the submission."""
    state: str
    jobs: Mapping[str, JobFacts]
    log: tuple[Transition, ...] = ()
    reason: str = ""
    """Why it ended so, as the last line of the log about the run itself says."""


@dataclass
class Evidence:
    """All of it. Shape: `executions` by job, in the order of their starts."""

    graphs: list[GraphFacts] = field(default_factory=list)
    executions: dict[str, list[Execution]] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    """What is left in Redis before anything is removed, and should not be."""

    def save(self, file: Path) -> None:
        """Keep it for somebody who has to look."""
        file.write_text(json.dumps(asdict(self), indent=1, default=repr))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file of lines; the file may not exist yet."""
    if not file.exists():
        return []
    text = file.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def pair(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[Execution]]:
    """Return the executions that the lines of the jobs tell of."""
    executions: dict[str, list[Execution]] = {}
    for line in lines:
        of_job = executions.setdefault(line["job"], [])
        if line["what"] == "start":
            of_job.append(
                Execution(
                    line["job"],
                    line["generation"],
                    line["pid"],
                    line["parent"],
                    line["worker"],
                    line["at"],
                )
            )
            continue
        at = next(i for i in reversed(range(len(of_job))) if of_job[i].pid == line["pid"])
        end = {"ended_at": line["at"], "how": line["what"], "text": line["text"]}
        of_job[at] = replace(of_job[at], **end)
    return executions


def read_graph(
    graph: Graph, told: Iterable[Mapping[str, Any]], connection: Redis, seen: Iterable[str]
) -> GraphFacts:
    """Return what Redis knows about a graph. `seen`: the ids of its jobs that have started."""
    lines = list(told)
    words = tuple(line["what"] for line in lines)
    at = max(line["at"] for line in lines if not line["what"].startswith("retr"))
    if graph.is_plain:
        ids = sorted({*(graph.job_id(node.name) for node in graph.nodes), *seen})
        ids += sorted(_blockers(ids, connection) - set(ids))
        return GraphFacts(graph, words, at, "", _read_jobs(ids, connection))
    try:
        state = runs.get_record(graph.id, connection).state
    except RunNotFound:
        return GraphFacts(graph, words, at, "", {})
    raw: Any = connection.lrange(keys.run_jobs(graph.id), 0, -1)
    events = list(runs.read_events(graph.id, connection))
    log = tuple(
        Transition(each.job_id, each.state, each.reason, each.worker)
        for each in events
        if each.name
    )
    reason = next((each.reason for each in reversed(events) if not each.name), "")
    jobs = _read_jobs([as_text(each) for each in raw], connection)
    return GraphFacts(graph, words, at, state, jobs, log, reason)


def _blockers(job_ids: Iterable[str], connection: Redis) -> set[str]:
    lists: list[Any] = [connection.lrange(keys.blockers(each), 0, -1) for each in job_ids]
    return {as_text(job_id) for each in lists for job_id in each}


def _read_jobs(job_ids: Iterable[str], connection: Redis) -> dict[str, JobFacts]:
    jobs = {}
    for job_id in job_ids:
        raw = _texts(connection.hgetall(keys.job(job_id)))
        if raw:
            jobs[job_id] = _facts(job_id, raw, connection)
    return jobs


def _texts(raw: Mapping[Any, Any]) -> dict[str, str]:
    return {as_text(k): as_text(v) for k, v in raw.items() if as_text(k) != "data"}


def _facts(job_id: str, raw: Mapping[str, str], connection: Redis) -> JobFacts:
    policy: Any = connection.hget(keys.future(job_id), "policy")
    blocks = raw.get("flowq_blocks", "").split()
    return JobFacts(
        job_id,
        raw.get("status", ""),
        raw.get("flowq_outcome", ""),
        int(raw.get("flowq_gen", 0)),
        int(raw.get("flowq_crashes", 0)),
        "flowq_future" in raw,
        as_text(policy) if policy else "",
        {block.rstrip("!"): not block.endswith("!") for block in blocks},
        "flowq_success" in raw,
    )


def find_leftovers(connection: Redis, queue: str) -> list[str]:
    """Return what must not be there once nothing goes on any more, runs and their jobs apart."""
    counts: dict[str, Any] = {
        "WIP entries": connection.zcard(f"{keys.PREFIX}:wip:{queue}"),
        "queued jobs": connection.llen(keys.queue(queue)),
        "scheduled jobs": connection.zcard(f"{keys.PREFIX}:scheduled:{queue}"),
        "steps to make": connection.zcard(keys.TODO),
        "staged runs": connection.zcard(keys.STAGED),
        "open future jobs that expire": connection.zcard(keys.EXPIRING),
        "watched future jobs": connection.zcard(keys.WATCHED),
        "workflows that wait for a round": connection.zcard(keys.ROUNDS),
        "deadlines": connection.zcard(keys.DEADLINES),
    }
    return [f"{count} {what}" for what, count in counts.items() if count]


PASSING = (
    "queues",
    "workers",
    "worker:",
    "scheduler-lock:",
    "clean_",
    "flowq:1:functions",
    "flowq:1:host:",
    "flowq:1:marks",
    "flowq:1:metrics",
    "flowq:1:again:",
)
"""Keys that workers leave for a while, or that name the queues, and the drafts of retries whose
client was killed, which end after ten minutes. All others are of jobs."""


def find_keys(connection: Redis) -> list[str]:
    """Return the keys that are left of jobs and runs."""
    names = sorted(as_text(key) for key in connection.scan_iter(count=1_000))
    start = len(keys.PREFIX) + 1
    return [name for name in names if not name[start:].startswith(PASSING)]
