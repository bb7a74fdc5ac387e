"""Pictures of graphs for tests: small ones, large ones, and one with everything hostile."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from flowq.graph import build_graph
from flowq.pictures.of_run import draw_run
from flowq.pictures.picture import Picture, draw
from flowq.spec import Approval, Block, ForEach, JobSpec, Matrix, Shell, Workflow
from flowq.status import JobStatus, RunStatus


def job(name: str, *needs: str, **said: Any) -> JobSpec:
    """Return a job that calls a function."""
    call = {} if {"run", "workflow"} & set(said) else {"call": "tasks:run"}
    return JobSpec(name, needs=needs, **call, **said)


def picture(
    *jobs: JobSpec, states: Mapping[str, str] | None = None, name: str = "flow", **said: Any
) -> Picture:
    """Return the picture of some jobs, of a run if they have states."""
    graph = build_graph(Workflow(name, jobs, **said))
    if states is None:
        return draw(graph)
    statuses = {job: JobStatus(job, f"r-{job}", state) for job, state in states.items()}
    return draw_run(RunStatus("r", name, "running", statuses), draw(graph))


SANDWICH = (
    job("cut_bread"),
    job("marmalade", "cut_bread"),
    job("butter", "cut_bread"),
    job("serve", "butter", "marmalade"),
)


def chain(count: int) -> Picture:
    """Return jobs in a row."""
    return picture(*(job(f"j{i}", *([f"j{i - 1}"] if i else [])) for i in range(count)))


def star(count: int) -> Picture:
    """Return one future job with many blockers."""
    blockers = [f"b{i}" for i in range(count)]
    return picture(*map(job, blockers), job("join", *blockers))


def all_to_all(count: int) -> Picture:
    """Return as many jobs, each of which waits for all of as many others."""
    first = [f"a{i}" for i in range(count)]
    return picture(*map(job, first), *(job(f"z{i}", *first) for i in range(count)))


def layered(count: int, levels: int, share: float = 0.6) -> Picture:
    """Return jobs in levels, with edges by chance, the same ones each time."""
    chance, names = random.Random(1), []
    jobs = []
    for level in range(levels):
        names.append([f"l{level}_{i}" for i in range(count // levels)])
        for name in names[-1]:
            needs = {chance.choice(names[level - 1])} if level else set()
            if level and chance.random() < share:
                needs.add(chance.choice(names[chance.randrange(level)]))
            jobs.append(job(name, *sorted(needs)))
    return picture(*jobs)


def nested(depth: int) -> Picture:
    """Return workflows inside of each other."""
    flow = Workflow("inner0", (job("x"), job("y", "x"), job("z", "x")))
    for level in range(1, depth):
        jobs = (job("before"), job("sub", "before", workflow="w"), job("after", "sub"))
        flow = Workflow(f"inner{level}", jobs, workflows={"w": flow})
    return draw(build_graph(flow))


def kinds() -> Picture:
    """Return one job of each kind."""
    ship = Workflow("ship", (job("pack"), job("send", "pack")))
    return picture(
        job("list_photos"),
        job(
            "thumbnail",
            for_each=ForEach("${{ jobs.list_photos.result }}"),
            blocks=(Block("gallery"),),
        ),
        job(
            "test",
            run=Shell("pytest"),
            matrix=Matrix({"py": [1]}),
            blocks=(Block("gallery", "ignore"),),
        ),
        job("gallery", deferred=True),
        job("ask", "gallery", approval=Approval("Ship?")),
        job("publish", "ask", workflow="ship", if_="inputs.publish"),
        job("tell", "publish", on_blocker_failure="run"),
        job("clean_up", is_final=True),
        workflows={"ship": ship},
    )


SCRIPT = "<script>alert('1')</script>"


def hostile() -> Picture:
    """Return texts that look different, or break what they stand in."""
    return picture(
        job("数据处理流水线"),
        job("عنوان_التقرير", "数据处理流水线"),
        job(
            SCRIPT,
            "数据处理流水线",
            description='"><img src=x onerror=alert(1)>',
            if_="a < b && ]]> '",
        ),
        job("n" * 200, "عنوان_التقرير"),
        job("👩‍🚀🚀 start", "n" * 200, SCRIPT),
        job("\x1b[31m\u202eevil\x00", "👩‍🚀🚀 start"),
        name=f'{SCRIPT} & "\ud83d',
    )


_MAKE_BY_NAME: Mapping[str, Callable[[], Picture]] = {
    "one job": lambda: picture(job("a")),
    "nothing": picture,
    "diamond": lambda: picture(*SANDWICH),
    "chain of 60": lambda: chain(60),
    "chain of 2,000": lambda: chain(2000),
    "star of 30": lambda: star(30),
    "star of 2,000": lambda: star(2000),
    "200 to 200": lambda: all_to_all(200),
    "12 jobs": lambda: layered(12, 4),
    "40 jobs": lambda: layered(40, 5),
    "300 jobs": lambda: layered(300, 8),
    "2,000 jobs": lambda: layered(2000, 12),
    "three deep": lambda: nested(3),
    "40 deep": lambda: nested(40),
    "kinds": kinds,
    "hostile": hostile,
}

SAMPLES: Mapping[str, Callable[[], Picture]] = {
    name: cache(make) for name, make in _MAKE_BY_NAME.items()
}
"""By name; each is made once."""
