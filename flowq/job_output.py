"""Reads what jobs have printed: all of it, the last lines, or what is new while they run.

It is in the server (`flowq.runtime.printed`), so commands see it on any host.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from flowq.client import Run
from flowq.render.job_output import attempt_lines, drop_note, left_out_note, show_line, split_lines
from flowq.runtime.printed import (
    Places,
    Printed,
    PrintedByJob,
    read_old_keepers,
    read_printed,
)
from flowq.status import JobStatus, RunStatus

Choose = Callable[[Mapping[tuple[str, int], int]], Places]

SAME_LENGTH_S = 2.0
"""How long a record of the same length counts as unchanged. Records are compressed, so one that has
grown can have the length that it had before."""


def read(
    run: Run, job_ids: Sequence[str], only_last: bool = False, choose: Choose | None = None
) -> PrintedByJob:
    """Return what jobs have printed so far, as `read_printed` does."""
    return read_printed(run.run_id, job_ids, run.connection, only_last, choose)


def read_last_lines(run: Run, job_ids: Sequence[str], lines: int) -> dict[str, list[str]]:
    """Return the last lines of the last attempts of these jobs, by id, oldest first."""
    found = read(run, job_ids, only_last=True).items()
    return {job_id: attempt_lines(each)[-lines:] for job_id, one in found for each in one.values()}


def explain_nothing(run: Run, job: JobStatus) -> str:
    """Return why a job that began has no output."""
    kind = read_old_keepers([job.worker], run.connection).get(job.worker)
    if kind is None:
        return f"{job.name} has printed nothing"
    where = "which prints it on its host" if kind == "RQ's" else "which keeps it on its host"
    name = "an older version of flowq" if kind == "older" else "RQ itself"
    return f"the output of {job.name} is not stored here: its worker belongs to {name}, {where}"


class Display(Protocol):
    """What shows the output of jobs."""

    def output(self, job: str, text: str) -> None:
        """Show a line of a job's output."""


class Tail:
    """Yields or shows the output of the jobs of a run while they run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # By job id and number of the attempt:
        self._position: dict[tuple[str, int], int] = {}
        self._rests: dict[tuple[str, int], bytes] = {}
        self._done: set[tuple[str, int]] = set()
        self._ended: set[tuple[str, int]] = set()
        self._lengths: dict[tuple[str, int], tuple[int, float]] = {}  # of records, and since when
        self._last: dict[str, int] = {}  # by job id: the last attempt that has printed something

    def look(self, status: RunStatus, display: Display) -> None:
        """Show what has been printed since the last look."""
        begun = (job for job in status.jobs.values() if job.attempts)
        jobs = [job for job in begun if (job.job_id, job.attempts) not in self._ended]
        for job, line in self.new_lines(jobs):
            display.output(job.name, line)

    def new_lines(self, jobs: Iterable[JobStatus]) -> Iterator[tuple[JobStatus, str]]:
        """Yield the complete lines that were not yielded before; of ended attempts all the rest."""
        job_by_id = {job.job_id: job for job in jobs}
        ended = {job_id for job_id, job in job_by_id.items() if job.ended_at is not None}
        choose = partial(self._choose, ended)
        for job_id, printed in read(self._run, list(job_by_id), choose=choose).items():
            job, last = job_by_id[job_id], max(*printed, self._last.get(job_id, 0))
            for number, each in sorted(printed.items()):
                is_over = number < last or job.ended_at is not None
                for line in self._new_lines((job_id, number), each, is_over=is_over):
                    yield job, line
        self._ended |= {(job.job_id, job.attempts) for job in job_by_id.values() if job.ended_at}

    def _choose(self, ended: Collection[str], lengths: Mapping[tuple[str, int], int]) -> Places:
        """Return the records to read: those that may have changed, and each once at its end."""
        now_s, chosen = time.monotonic(), Places()
        for job_id, number in lengths:
            self._last[job_id] = max(number, self._last.get(job_id, 0))
        for place, length in lengths.items():
            before, since_s = self._lengths.get(place, (0, 0.0))
            is_over = place[0] in ended or place[1] < self._last[place[0]]
            is_same = length == before and now_s < since_s + SAME_LENGTH_S
            if place not in self._done and (is_over or not is_same):
                self._lengths[place] = length, now_s
                chosen.append(place)
        return chosen

    def has_seen(self, job: JobStatus) -> bool:
        """Whether some attempt of the job has printed something."""
        return any(job_id == job.job_id for job_id, _ in self._position)

    def _new_lines(self, key: tuple[str, int], printed: Printed, *, is_over: bool) -> Iterator[str]:
        if key in self._done:
            return
        before, left_out, text = printed.read_from(self._position.get(key, 0))
        if not printed.dropped:
            self._position[key] = printed.size
            text, rest = self._rests.pop(key, b"") + before, text
            if left_out:
                yield from split_lines(text)
                yield left_out_note(left_out)
                text = b""
            *lines, rest = (text + rest).split(b"\n")
            yield from map(show_line, lines)
            if rest and is_over:
                yield show_line(rest)
            elif rest:
                self._rests[key] = rest
        elif is_over:
            self._position[key] = printed.size
            yield drop_note(printed)
        if is_over:
            self._done.add(key)
