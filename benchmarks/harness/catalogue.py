"""Which systems there are and what they are to do, as values."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

ENDLESS = 10**9
LARGE = 5_000


@dataclass(frozen=True, slots=True)
class System:
    """One way to run jobs: a row of the table."""

    name: str
    family: str
    """Rows that are compared with the same claim: `flowq`, `rq`, `python`, `bullmq`, …"""
    tasks: str
    """The file in `systems/` that declares."""
    environment: str
    worker: tuple[str, ...]
    """The command; `{bin}` is the folder of the environment's programs, `{here}` of the tasks."""
    works: str = "W1 W2 W3 W5"
    """What it does unless it is asked for by name: kinds of work, or works (`W1:1000`)."""
    children: int = 1
    holds: bool = False
    """Whether a warm worker can be kept from a graph that is declared already."""
    stores_join: bool = True
    largest: int = ENDLESS
    """The largest fan-in that ends in reasonable time."""
    unix: bool = False
    """Whether it is to use the server's Unix socket; the others use TCP."""


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do, and how it is written on the command line."""

    kind: str
    count: int
    shape: str
    body: str
    title: str
    modes: tuple[str, ...] = ("drain", "e2e")
    e2e_rounds: int = ENDLESS
    """How often it is done end to end, too: less often where that takes long."""

    @property
    def name(self) -> str:
        """As on the command line: `W1:1000`."""
        return f"{self.kind}:{self.count}"

    @property
    def is_large(self) -> bool:
        """Whether it takes long."""
        return self.jobs > LARGE

    @property
    def joins(self) -> int:
        """How many joins have to start until it is done."""
        return self.count if self.shape == "diamonds" else 1

    @property
    def jobs(self) -> int:
        """How many jobs it is, joins included."""
        return {"fan_in": self.count + 1, "chain": self.count, "diamonds": 6 * self.count}[
            self.shape
        ]


DRAIN = ("drain",)
WORKS = {
    work.kind: work
    for work in (
        Work("W1", 1_000, "fan_in", "nothing", "{} blockers that do nothing, one join"),
        Work("W2", 500, "chain", "nothing", "a chain of {}"),
        Work("W3", 100, "diamonds", "nothing", "{} diamonds (1 → 4 → 1)"),
        Work("W4", 1_000, "fan_in", "spin:10", "{} blockers of 10 ms of CPU, one join", DRAIN),
        Work("W4b", 1_000, "fan_in", "spin:1", "{} blockers of 1 ms of CPU, one join", DRAIN),
        Work(
            "W5",
            1_000,
            "fan_in",
            "take:100000",
            "{} blockers with 100 kB each, one join",
            e2e_rounds=1,
        ),
    )
}


def find_work(text: str) -> Work:
    """Return what `W1:10000` or `W4` means. Errors: ValueError."""
    kind, _, count = text.partition(":")
    if kind not in WORKS or (count and not (count.isdigit() and int(count) > 1)):
        raise ValueError(f"{text!r} is no work; write one of {', '.join(WORKS)}, or W1:10000")
    work = replace(WORKS[kind], count=int(count)) if count else WORKS[kind]
    return replace(work, e2e_rounds=1) if work.is_large else work


# The systems -------------------------------------------------------------------------------------


def _flowq(
    name: str, works: str, *, unix: bool = False, largest: int = ENDLESS, **options: object
) -> System:
    command = ("{bin}/python", "{here}/flowq_worker.py", json.dumps(options))
    return System(
        name,
        "flowq" if largest == ENDLESS else "flowq-slow",
        "flowq_tasks.py",
        "flowq",
        command,
        works,
        children=int(str(options.get("concurrency", 1))),
        holds=True,
        largest=largest,
        unix=unix,
    )


def _python(name: str, tasks: str, command: str, **options: object) -> System:
    kind = tasks.partition("_")[0]
    family = "rq" if kind == "rq" else "python"
    return System(name, family, tasks, kind, tuple(command.split()), **options)  # type: ignore[arg-type]


def _bullmq(name: str, command: str, **options: object) -> System:
    family = "bullmq-sandbox" if "sandboxed" in command else "bullmq"
    words = ("node", "{here}/bullmq_worker.js", *command.split())
    return System(name, family, "bullmq_client.js", "js", words, holds=True, **options)  # type: ignore[arg-type]


def _bare(children: int, works: str) -> System:
    name = f"bare-{children}"
    command = ("{bin}/python", "{here}/bare.py", str(children))
    return System(name, "bare", "", "flowq", command, works, children=children)


_RQ = "{bin}/rq worker --quiet --url {url} --path {here} "
_RQ_SIMPLE = _RQ + "--worker-class rq.worker.SimpleWorker"
_CELERY = "{bin}/celery --app celery_tasks worker --loglevel WARNING --pool prefork --concurrency "
_HUEY = "{bin}/huey_consumer huey_tasks.huey --quiet --worker-type process --workers "
_DRAMATIQ = "{bin}/dramatiq dramatiq_tasks --skip-logging --threads 1 --processes "

SYSTEMS = (
    _bare(1, "W4b"),
    _bare(2, "W4 W4b"),
    _flowq("flowq", "W1 W2 W3 W4b W5", mode="warm"),
    _flowq("flowq-2", "W1 W4 W4b", mode="warm", concurrency=2),
    _flowq("flowq-mp", "W1", mode="multiprocessing"),
    _flowq("flowq-mp-2", "", mode="multiprocessing", concurrency=2),
    _flowq("flowq-unbatched", "W1", mode="warm", batches=False),
    _flowq("flowq-unix", "W1:1000", mode="warm", unix=True),
    _flowq("flowq-fork", "W1", mode="fork", largest=1_000),
    _flowq("flowq-fork-preload", "", mode="fork", largest=1_000, preload=["mark"]),
    _flowq("flowq-mp-unbatched", "", mode="multiprocessing", batches=False),
    _flowq("flowq-fresh", "", mode="multiprocessing", max_jobs_per_child=1, largest=1_000),
    _python("rq-fork", "rq_tasks.py", _RQ, works="W1", largest=1_000),
    _python("rq-simple", "rq_tasks.py", _RQ_SIMPLE, works="W1 W2 W3", largest=1_000),
    _python("celery", "celery_tasks.py", _CELERY + "1"),
    _python("celery-2", "celery_tasks.py", _CELERY + "2", works="W4", children=2),
    _python("dramatiq", "dramatiq_tasks.py", _DRAMATIQ + "1"),
    _python("dramatiq-2", "dramatiq_tasks.py", _DRAMATIQ + "2", works="W4", children=2),
    _python("huey", "huey_tasks.py", _HUEY + "1"),
    _python("huey-2", "huey_tasks.py", _HUEY + "2", works="W4", children=2),
    _python(
        "saq", "saq_tasks.py", "{bin}/saq saq_tasks.settings", works="W1 W5", stores_join=False
    ),
    _python("streaq", "streaq_tasks.py", "{bin}/streaq run streaq_tasks:worker"),
    _bullmq("bullmq", "1"),
    _bullmq("bullmq-50", "50", works="W1"),
    _bullmq("bullmq-sandbox", "1 sandboxed", works="W1 W2"),
    _bullmq("bullmq-sandbox-2", "2 sandboxed", works="W4", children=2),
)


def choose(pattern: str) -> list[System]:
    """Return the systems whose names match, as file names do. Errors: ValueError, if none does."""
    chosen = [system for system in SYSTEMS if fnmatchcase(system.name, pattern)]
    if not chosen:
        names = ", ".join(system.name for system in SYSTEMS)
        raise ValueError(f"no system is called {pattern!r}; there are {names}")
    return chosen
