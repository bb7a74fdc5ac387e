"""`Hold`: the options `deferred=`, `blocked_by=` and `blocks=` of a call of `enqueue`.

`Queue` separates them from RQ's options here, before RQ sees the call, and the planner's jobs get
theirs here too. A hold is checked for its form only; lua/add.lua checks it against the jobs that
exist, in the script that enqueues.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from rq.job import Job as RQJob

from flowq.durations import parse_duration
from flowq.errors import UsageError

if TYPE_CHECKING:
    from flowq.spec import BlockerPolicy, StartWhen

OPTIONS = (
    *("deferred", "blocked_by", "blocks", "on_blocker_failure", "if_empty"),
    *("start_when", "cancel_rest", "expires"),
)
_ALWAYS = OPTIONS[:-3]
"""The options of other jobs than future jobs: there, the last ones are the function's."""
_JOB_ID = re.compile(r"[A-Za-z0-9_-]+")  # what RQ allows
POLICIES = ("wait", "skip", "run")
STARTS = ("one_success", "one_failed")


@dataclass(frozen=True, slots=True)
class Edge:
    """A future job to block, with a policy for this edge alone; like `rq.Dependency`.

    `on_failure="ignore"`: the future job ignores how this blocker ends.
    """

    future: RQJob | str
    on_failure: Literal["ignore"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.future, RQJob | str):
            raise UsageError(f"flowq.Edge() takes a job or a job id, not {self.future!r}")
        if isinstance(self.future, str) and not _JOB_ID.fullmatch(self.future):
            raise UsageError(f"{self.future!r} is not a job id: letters, digits, - and _ only")
        if self.on_failure not in (None, "ignore"):
            raise UsageError(f"on_failure must be None or 'ignore', not {self.on_failure!r}")

    @property
    def future_id(self) -> str:
        """The job id of the future job."""
        return self.future if isinstance(self.future, str) else str(self.future.id)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a new job is held.

    Attributes:
        edges: in the order given; each future job occurs once.
        policy: None for the default, which is `wait`, as RQ's depends_on, but `skip` in a run, so
            that each run ends. Or the `start_when` of a job that does not wait for all blockers.
        at_s: do not queue the job before this time, in epoch seconds; None for no limit.
        expires_s: a future job that is not released within so many seconds is canceled.
        fields: flowq's fields for the job's hash, which the scripts read.
    """

    deferred: bool = False
    edges: tuple[Edge, ...] = ()
    policy: BlockerPolicy | StartWhen | None = None
    if_empty: Literal["run", "skip"] = "run"
    at_s: float | None = None
    expires_s: float | None = None
    run_id: str = ""
    name: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_needed(self) -> bool:
        """Whether the job is held; otherwise it is an ordinary job of RQ."""
        return self.deferred or bool(self.edges) or bool(self.run_id)

    @property
    def blocks(self) -> str:
        """The edges in the form in which scripts store them in the job's hash: `a b! c`."""
        return " ".join(
            f"{edge.future_id}!" if edge.on_failure else edge.future_id for edge in self.edges
        )

    @property
    def future(self) -> str:
        """The policy of a future job in the form that scripts take; empty for other jobs."""
        expires = "-" if self.expires_s is None else f"{self.expires_s:.3f}"
        return f"{self.policy or '-'} {self.if_empty} {expires}" if self.deferred else ""

    def at(self, at_s: float) -> Hold:
        """Return the same hold with a time before which the job must not be queued."""
        return replace(self, at_s=at_s)


NO_HOLD = Hold()


def take_hold(options: dict[str, Any]) -> Hold:
    """Remove flowq's options from the keyword arguments of an enqueue; return them as a hold.

    Errors: UsageError for invalid values.
    """
    names = OPTIONS if options.get("deferred") is True else _ALWAYS
    given = {name: options.pop(name) for name in names if name in options}
    if not given:
        return NO_HOLD
    target = given.get("blocked_by")
    if len(given) == 1 and isinstance(target, str | RQJob):
        return _hold_before(target if isinstance(target, str) else str(target.id))
    deferred = given.get("deferred", False)
    if not isinstance(deferred, bool):
        raise UsageError(f"deferred must be True or False, not {deferred!r}")
    if not deferred and ("on_blocker_failure" in given or "if_empty" in given):
        raise UsageError("on_blocker_failure and if_empty are for future jobs: pass deferred=True")
    return Hold(
        deferred=deferred,
        edges=_edges([given.get("blocked_by"), given.get("blocks")]),
        policy=_policy(given),
        if_empty=_one_of("if_empty", given.get("if_empty", "run"), ("run", "skip")),
        expires_s=_duration("expires", given.get("expires")),
        fields=_first_fields(given),
    )


@lru_cache(maxsize=1024)
def _hold_before(future_id: str) -> Hold:
    """Return the most frequent hold: one future job, and no other option."""
    return Hold(edges=(Edge(future_id),))


def take_hold_of_call(function: Any, kwargs: dict[str, Any]) -> Hold:
    """Do the same for the arguments of the function, among which a decorator puts our options.

    Source: `rq.decorators.job` passes every keyword that it does not know to the function. A
    keyword that is a parameter of the function belongs to the function. The parameters of a
    function that is given by name are unknown.
    Errors: UsageError for a function with `**kwargs`, for which the keywords are ambiguous.
    """
    if not callable(function) or not any(name in kwargs for name in OPTIONS):
        return NO_HOLD
    parameters = inspect.signature(function).parameters
    ours = {name: kwargs[name] for name in OPTIONS if name in kwargs and name not in parameters}
    if ours and any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        raise UsageError(
            f"{function.__qualname__} takes any keyword, so {', '.join(ours)} may be meant for it "
            "or for the queue; call flowq.Queue.enqueue instead"
        )
    for name in ours:
        del kwargs[name]
    return take_hold(ours)


def first_fields(start_when: str | None, cancel_rest: bool | None) -> dict[str, str]:
    """Return the fields of a job that starts at the first success or failure of a blocker."""
    return {"flowq_first": "cancel" if cancel_rest else "keep"} if start_when else {}


def _first_fields(given: Mapping[str, Any]) -> Mapping[str, str]:
    cancel_rest, start_when = given.get("cancel_rest", False), given.get("start_when")
    if not isinstance(cancel_rest, bool):
        raise UsageError(f"cancel_rest must be True or False, not {cancel_rest!r}")
    if cancel_rest and start_when is None:
        raise UsageError("cancel_rest needs start_when='one_success' or 'one_failed'")
    return first_fields(start_when, cancel_rest)


def _policy(given: Mapping[str, Any]) -> BlockerPolicy | StartWhen | None:
    if given.get("start_when") is not None:
        for other in ("on_blocker_failure", "if_empty"):
            if other in given:
                raise UsageError(f"start_when and {other} exclude each other")
        first: StartWhen = _one_of("start_when", given["start_when"], STARTS)
        return first
    if "on_blocker_failure" not in given:
        return None
    policy: BlockerPolicy = _one_of("on_blocker_failure", given["on_blocker_failure"], POLICIES)
    return policy


def _duration(option: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else parse_duration(value)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if seconds <= 0:
        raise UsageError(f"{option} must be more than zero, not {value!r}")
    return float(seconds)


def _one_of(option: str, value: Any, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise UsageError(f"{option} must be one of {', '.join(allowed)}, not {value!r}")
    return value


def _edges(targets: Iterable[Any]) -> tuple[Edge, ...]:
    edges: dict[str, Edge] = {}
    for target in targets:
        for edge in _as_edges(target):
            before = edges.setdefault(edge.future_id, edge)
            if before is not edge and before.on_failure != edge.on_failure:
                raise UsageError(f"two policies for the edge to {edge.future_id}")
    return tuple(edges.values())


def _as_edges(target: Any) -> list[Edge]:
    if target is None:
        return []
    if isinstance(target, Edge):
        return [target]
    if isinstance(target, str | RQJob):
        return [Edge(target)]
    if isinstance(target, Iterable) and not isinstance(target, Mapping):
        return [edge for item in target for edge in _as_edges(item)]
    raise UsageError(
        f"blocked_by (or blocks) takes a future job, its id, a flowq.Edge, "
        f"or a list of these, not {target!r}"
    )
