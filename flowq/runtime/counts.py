"""How many jobs of each declaration of a run are in which state, without reading the jobs.

Scripts keep the counts with each event (`lua/tally.lua`). A reader needs one call for all
declarations, and pages for the items that are in one state. Where an older version has taken part
in the run there are no counts, and readers fold the events instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from redis.exceptions import NoPermissionError
from rq.utils import as_text

from flowq.runtime import keys, scripts
from flowq.runtime.runs import get_record
from flowq.status import BUSY, RunStatus

if TYPE_CHECKING:
    from redis import Redis

STATES = (
    *("deferred", "asking", "stuck", "scheduled", "queued", "started"),
    *("finished", "skipped", "tolerated", "failed", "stopped", "expired", "canceled", "deleted"),
)
"""The states that are told apart, in the order of their codes. `asking`, `stuck` and `tolerated`
are cases of `deferred` and `failed`."""

SHOWN = {"asking": "deferred", "stuck": "deferred", "tolerated": "failed"}

Kind = Literal["item", "inside", "start", "list"]
KINDS: tuple[Kind, ...] = ("item", "inside", "start", "list")
"""What a job is to its declaration: an item of the group, inside of a nested workflow, or one that
begins such a workflow, or makes a list inside of it."""

PER_CODE, PER_KIND = 2**40, 2**36
PAGE = 500


@dataclass(frozen=True, slots=True)
class Single:
    """The one job with the id of a declaration: it makes the list of a group, or stands alone."""

    name: str
    state: str
    reason: str = ""
    worker: str = ""
    attempts: int = 0
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """One declaration. Shape: `counts` by kind and state, without zeros. `began_at`: when the first
    of its jobs was handed to a worker; `ended_at`: when one has ended last."""

    job_id: str
    single: Single | None = None
    counts: Mapping[tuple[Kind, str], int] = field(default_factory=dict)
    began_at: datetime | None = None
    ended_at: datetime | None = None

    def by_state(self, *kinds: Kind) -> dict[str, int]:
        """Return how many of its jobs of these kinds are in each state."""
        found: dict[str, int] = {}
        for (kind, state), count in self.counts.items():
            if kind in kinds:
                found[state] = found.get(state, 0) + count
        return found


def read_tallies(run_id: str, connection: Redis) -> list[Tally] | None:
    """Return the counts of a run's declarations, in their order; None where there are none.

    Costs as much as the declarations, however many jobs they have. Atomic.
    """
    ids = [as_text(raw) for raw in connection.lrange(keys.run_order(run_id), 0, -1)]
    declared = list(dict.fromkeys(job_id.partition("--")[0] for job_id in ids))
    try:
        answer = scripts.TALLY.call(connection, keys.run(run_id), run_id, *declared)
    except NoPermissionError:  # of a user that may look only
        return None
    if not answer[0]:
        return None
    parts = [answer[at : at + 4] for at in range(1, len(answer), 4)]
    return [_tally(job_id, *each) for job_id, each in zip(declared, parts, strict=True)]


def _tally(job_id: str, raw: list[Any], flat: list[int], began: bytes, ended: bytes) -> Tally:
    counts = {
        (KINDS[kind], STATES[code - 1]): count
        for code, kind, count in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
    }
    return Tally(job_id, _single(job_id, raw), counts, _instant(began), _instant(ended))


def _instant(score: bytes) -> datetime | None:
    return datetime.fromtimestamp(-float(score), UTC) if score else None


def _single(job_id: str, raw: list[Any]) -> Single | None:
    words = [as_text(word) if word is not None else "" for word in raw]
    status, outcome, reason, began, ended, attempts, worker, name, asked, *answers = words
    if not status:
        return None
    if not outcome and status == "deferred" and asked and not any(answers):
        state = "asking"
    else:
        state = {"passed": "skipped"}.get(outcome, outcome) or status
    if state == "ready_to_enqueue":
        state = "deferred"
    return Single(
        name or job_id,
        state,
        reason if outcome else "",
        worker if state == "started" or ended else "",
        int(attempts or 0),
        datetime.fromisoformat(began) if began else None,
        datetime.fromisoformat(ended) if ended and outcome else None,
    )


def list_jobs(
    declared_id: str, state: str, connection: Redis, kind: Kind = "item", after: str = ""
) -> Iterator[str]:
    """Yield the ids of the jobs of a declaration that are in this state, in the order of the items.

    `after`: an id that came from here; only later ones. Reads a page at a time.
    """
    key = keys.states(declared_id)
    first = (STATES.index(state) + 1) * PER_CODE + KINDS.index(kind) * PER_KIND
    offset = 0
    lowest: float | str = first
    if after:
        score: Any = connection.zscore(key, after.removeprefix(declared_id))
        lowest = f"({score:.0f}" if score is not None else first
    while True:
        page: Any = connection.zrangebyscore(
            key, lowest, f"({first + PER_KIND}", start=offset, num=PAGE
        )
        yield from (declared_id + as_text(member) for member in page)
        if len(page) < PAGE:
            return
        offset += PAGE


@dataclass(frozen=True, slots=True)
class Counted:
    """A run without its jobs: `status` has none of them. Shape: `tallies` in the order of
    declaration; `groups` are the names of those declarations that make any number of jobs."""

    status: RunStatus
    tallies: list[Tally]
    groups: frozenset[str]

    @property
    def is_stuck(self) -> bool:
        """Whether some job waits for failed blockers."""
        return any("stuck" in each.by_state(*KINDS) for each in self.tallies)


def read_counted(run_id: str, connection: Redis) -> Counted | None:
    """Return what is known of a run without reading its jobs; None where that is not enough.

    Errors: RunNotFound.
    """
    record = get_record(run_id, connection)
    began: Any = connection.hget(keys.run(run_id), "began_at")
    tallies = read_tallies(run_id, connection)
    if tallies is None or (record.committed_at and not began and record.state != "waiting"):
        return None
    names = (as_text(raw) for raw in connection.sscan_iter(keys.run_groups(run_id), count=1_000))
    groups = frozenset(name.removeprefix(f"{run_id}-") for name in names if "--" not in name)
    status = RunStatus(
        run_id,
        record.workflow,
        _state_of(record.state, tallies),
        started_at=datetime.fromisoformat(as_text(began)) if began else None,
        ended_at=record.ended_at,
        groups=groups,
        reason=f"the run {record.reason}" if record.reason else "",
    )
    return Counted(status, tallies, groups)


def _state_of(state: str, tallies: list[Tally]) -> str:
    """Return `waiting` for a running run in which nothing can happen unless somebody acts."""
    if state != "running":
        return state
    states = {each for tally in tallies for each in tally.by_state(*KINDS)}
    states |= {tally.single.state for tally in tallies if tally.single is not None}
    return "waiting" if states & {"asking", "stuck"} and not states & set(BUSY) else state
