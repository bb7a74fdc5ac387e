"""A declared workflow as immutable values, the same for YAML and Python.

`flowq.declare` makes these values; checks, planner and exports read them. Two workflows with the
same declarations are equal: positions are kept beside them and do not take part in comparisons.
This module knows nothing of Redis and imports the standard library only, because every child
process imports it.

An argument (`JobSpec.with_`) is plain data: None, bool, int, float, str, lists and string-keyed
mappings of these. A string may contain `${{ … }}`; `$${{` stands for a literal `${{`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from flowq.errors import Excerpt, Problem, Where

InputType = Literal["str", "int", "float", "bool", "path", "list", "json", "enum"]
BlockerPolicy = Literal["wait", "skip", "run"]
StartWhen = Literal["one_success", "one_failed"]
ShellResult = Literal["last", "text", "lines", "json"]
CatchUp = Literal["none", "last", "all"]
SecretResults = Literal["mask", "refuse"]
REFUSE: SecretResults = "refuse"
PASS_ON = "skip"  # noqa: S105 - a word of the language
"""The value of `else` for a branch without other jobs: what needs only this job is skipped too."""

Path = tuple[str | int, ...]
"""A place in a document, as keys and indexes from the root: ("jobs", "gallery", "with")."""

MAX_ITEMS = 100_000
"""The default limit of a group's items."""

T = TypeVar("T")


def reads_older_pickles(cls: type[T]) -> type[T]:
    """Make a dataclass with slots readable from pickles of versions that had fewer fields.

    Versions up to 0.1 stored parts of a plan in Redis as pickles; `flowq.runtime.wire` has replaced
    them.
    """

    def get_state(self: Any) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}

    cls.__getstate__ = get_state  # type: ignore[method-assign]
    cls.__setstate__ = set_state  # type: ignore[attr-defined]  # dataclasses set both as well
    return cls


def set_state(self: Any, state: dict[str, Any] | list[Any]) -> None:
    """Set the fields of a new value from a pickle; missing fields have their default.

    Shape: the fields by name, or by position, as versions up to 0.1 wrote them.
    """
    if isinstance(state, list):
        names = FIELDS_OF_0_1.get(type(self).__name__) or [each.name for each in fields(self)]
        state = dict(zip(names, state, strict=False))
    for each in fields(self):
        if each.name in state:
            value = state[each.name]
        elif each.default_factory is not MISSING:
            value = each.default_factory()
        else:
            value = each.default
        object.__setattr__(self, each.name, value)


FIELDS_OF_0_1: Mapping[str, tuple[str, ...]] = {
    "JobSpec": (
        *("name", "call", "with_", "needs", "blocks", "deferred", "queue", "timeout_s", "retries"),
        *("description", "on_blocker_failure", "run", "workflow", "env", "cwd", "if_", "for_each"),
        *("matrix", "max_parallel", "fail_fast", "continue_on_error", "approval", "if_empty"),
        *("on_crash", "expires_s", "at_front"),
    ),
}
"""The fields in the order of pickles up to 0.1, for classes whose order has changed."""


@runtime_checkable
class KnowsTexts(Protocol):
    """Positions that also know the positions of parts of a text."""

    def find_places(self, path: Path, excerpt: Excerpt) -> list[Where]:
        """Return every position of a part of the text at `path`."""


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Places:
    """Where each part of a declaration was written.

    Shape: positions by path. A part without a position of its own has that of its parent.
    """

    where_by_path: Mapping[Path, Where] = field(default_factory=dict)

    def find(self, *path: str | int) -> Where | None:
        """Return the position of a part, or of the nearest part that contains it, or None."""
        for length in range(len(path), -1, -1):
            where = self.where_by_path.get(path[:length])
            if where is not None:
                return where
        return None

    def place(self, problem: Problem, *path: str | int) -> Iterator[Problem]:
        """Yield a problem of the value at `path` with its position.

        A problem of a part of a text is yielded once for each position of that part.
        """
        where_by_path, excerpt = self.where_by_path, problem.excerpt
        places: list[Where | None] = []
        if excerpt is not None and isinstance(where_by_path, KnowsTexts):
            places += where_by_path.find_places(path, excerpt)
        for where in places or [self.find(*path)]:
            yield replace(problem, where=where)


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Retry:
    """How often a failed job is retried, when, and after which failures.

    Units: seconds. The first wait is `backoff_s`; each further wait is `factor` times as long, at
    most `max_backoff_s`. `jitter` lengthens each wait by a random part of up to this share. No
    attempt begins later than `within_s` after the first one.
    Shape: `on` and `never_on` have names of exception classes (`package.module:Class`, or the name
    of a builtin) and exit codes (`137`, `1-3`). An empty `on` means every failure.
    """

    max: int
    backoff_s: float = 0
    factor: float = 1
    max_backoff_s: float | None = None
    jitter: float = 0
    within_s: float | None = None
    on: tuple[str, ...] = ()
    never_on: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether RQ's own retries are enough: a number of attempts with a constant backoff."""
        return self == Retry(self.max, self.backoff_s)


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Input:
    """A typed input of a workflow; one without a default is required."""

    name: str
    type: InputType = "str"
    default: Any = None
    required: bool = True
    description: str = ""
    choices: tuple[str, ...] = ()
    pattern: str | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Block:
    """An edge, declared at the earlier job: it must run before the future job `name`."""

    name: str
    on_failure: Literal["ignore"] | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class ForEach:
    """One job for each item of a list, which may be known only during the run.

    Shape: `items` is a list, or a template that is one expression for a list. `more` is an
    expression over a finished item's `result`, for further items of the same group. `key` is an
    expression over `item` (and `index`) that names an item; items with a known key are dropped.
    `stop_when` is an expression over an item's `result`. The expressions have no braces.
    `max_items` is None for the workflow's default, or `MAX_ITEMS`.
    """

    items: Any
    key: str | None = None
    more: str | None = None
    max_items: int | None = None
    stop_when: str | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Matrix:
    """One job for each combination, known before the run; the first axis changes slowest.

    Shape: `axes` by name in the order of declaration, each a list, or a template that is one
    expression over inputs. `include` adds combinations, or extends matching ones; `exclude` removes
    combinations. `stop_when` is as in `ForEach`.
    """

    axes: Mapping[str, Any] = field(default_factory=dict)
    include: tuple[Mapping[str, Any], ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()
    stop_when: str | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Tolerance:
    """How many failures of a job, or of its group, count as successes. Shape: one of the two."""

    count: int | None = None
    percent: float | None = None


ALL_TOLERATED = Tolerance(percent=100)
NONE_TOLERATED = Tolerance(count=0)


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Approval:
    """The job waits for `flowq approve RUN JOB` when everything else is ready.

    Shape: `message` is a template; `inputs` are the inputs of the approval, with unique names.
    Units: `expires_s` in seconds from the request for approval, None for no limit.
    """

    message: str = ""
    expires_s: float | None = None
    inputs: tuple[Input, ...] = ()


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Poll:
    """The job is executed again and again, until an expression on its `result` is true.

    Between two executions no worker is occupied. Shape: `until` is an expression without braces.
    Units: `every_s` in seconds from the end of an execution; `within_s` from the start of the
    first one, None for no limit.
    """

    until: str
    every_s: float = 30
    within_s: float | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Shell:
    """A command. `result` selects the part of its output that is the job's result.

    Shape: `command` is a template for a shell, or the name of a program and its arguments, each a
    template; `shell` is None then. `result`: `last` (the last line), `text`, `lines`, `json`, or
    None for the default. In a planned job, `places` has a letter for each expression of a text: see
    `flowq.commands.values`.
    """

    command: str | tuple[str, ...]
    shell: str | None = None
    result: ShellResult | None = None
    places: str = ""


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Schedule:
    """When runs are submitted automatically. `timezone` is a name of the IANA database.

    Shape: `inputs` by name; its texts may contain expressions over `run`. `catch_up` says which of
    the due times are made up for at which nothing watched the clock.
    """

    cron: str
    timezone: str = "UTC"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = "none"


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` runs, or jobs across all runs, of a group at a time.

    Shape: the `group` of runs may contain expressions over inputs; that of a job is fixed text, and
    "" while it is a setting.
    """

    group: str
    cancel_in_progress: bool = False
    limit: int = 1


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many starts of jobs in each period, across all runs.

    Shape: `limit` is `10/m` (`flowq.durations.parse_rate`). Jobs with the same `group` count
    together; "" is a group of the job alone.
    """

    limit: str
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a job that the planner passes on unchanged.

    Declared jobs and planned jobs have these fields: a plain key of the language is one field here,
    and `flowq.runtime.planned` passes it to RQ or to the scripts.

    Units: `expires_s` in seconds, None for no limit. Shape: None if the key is absent. Add new
    fields at the end.
    """

    expires_s: float | None = None
    if_empty: Literal["run", "skip"] | None = None
    on_crash: Literal["requeue", "fail"] | None = None
    at_front: bool | None = None
    start_when: StartWhen | None = None
    cancel_rest: bool | None = None


OPTIONS = tuple(each.name for each in fields(Options))


def options_of(job: Options) -> dict[str, Any]:
    """Return the options of a job by name."""
    return {name: getattr(job, name) for name in OPTIONS}


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class JobSpec(Options):
    """The declaration of one job: a call, a command, another workflow, or a sleep; exactly one.

    Units: `timeout_s` in seconds, None for the workflow's default, or no limit.
    Shape: None means absent, so the workflow's default applies. `needs` and `blocks` keep the order
    of declaration, without repeats. `if_` is an expression without braces. `workflow` is a file
    beside this one, or a name under the workflow's own `workflows`. `sleep` is a template for a
    duration or an instant (`flowq.durations.parse_pause`). A job that `is_final` is declared under
    `finally`: it runs when all other jobs have ended. `settings` has the templates of the keys that
    are written as expressions (`queue`, `retries.max`); their fields are those of absent keys until
    `flowq.settings` evaluates them. `else_` has the jobs that run if `if_` is false, or `PASS_ON`
    alone, for none. Of a group, `concurrency` and `rate` are those of each item.
    """

    name: str
    call: str = ""
    with_: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    deferred: bool = False
    queue: str | None = None
    timeout_s: float | None = None
    retries: Retry | None = None
    description: str = ""
    on_blocker_failure: BlockerPolicy | None = None
    run: Shell | None = None
    workflow: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    if_: str | None = None
    for_each: ForEach | None = None
    matrix: Matrix | None = None
    max_parallel: int | None = None
    fail_fast: bool | None = None
    continue_on_error: Tolerance | None = None
    approval: Approval | None = None
    is_final: bool = False
    secret_results: SecretResults | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    else_: tuple[str, ...] = ()
    sleep: str | None = None
    poll: Poll | None = None
    concurrency: Concurrency | None = None
    rate: Rate | None = None


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Defaults:
    """The default options of jobs, as far as they apply to a kind of job.

    Units: `timeout_s`, `expires_s` in seconds. Shape: None if the key is absent; `settings` is as
    in `JobSpec`.
    """

    queue: str = "default"
    timeout_s: float | None = None
    retries: Retry | None = None
    at_front: bool | None = None
    expires_s: float | None = None
    on_crash: Literal["requeue", "fail"] | None = None
    on_blocker_failure: BlockerPolicy | None = None
    continue_on_error: Tolerance | None = None
    cwd: str | None = None
    shell: str | None = None
    result: ShellResult | None = None
    max_parallel: int | None = None
    fail_fast: bool | None = None
    max_items: int | None = None
    secret_results: SecretResults | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


@reads_older_pickles
@dataclass(frozen=True, slots=True)
class Workflow:
    """A named graph of declared jobs with typed inputs.

    Units: `timeout_s` in seconds, for a whole run; None for no limit.
    Shape: `jobs` and `inputs` in the order of declaration, with unique names; `outputs` may contain
    expressions over results, `labels` over inputs; `workflows` has the nested workflows by name.
    `folder` is the folder of the file (importable during a run), or None. `unread` has the paths of
    parts that were read only in part, or not at all, because of problems. It is empty for every
    workflow that can run.
    """

    name: str
    jobs: tuple[JobSpec, ...]
    inputs: tuple[Input, ...] = ()
    description: str = ""
    defaults: Defaults = field(default_factory=Defaults)
    env: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    workflows: Mapping[str, Workflow] = field(default_factory=dict)
    max_parallel: int | None = None
    concurrency: Concurrency | None = None
    schedule: Schedule | None = None
    places: Places = field(default_factory=Places, compare=False, repr=False)
    folder: str | None = field(default=None, compare=False)
    unread: frozenset[Path] = field(default=frozenset(), compare=False, repr=False)
    timeout_s: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    more_schedules: tuple[Schedule, ...] = ()

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """All schedules; older versions know only the first one, `schedule`."""
        return (*filter(None, [self.schedule]), *self.more_schedules)

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self.jobs)

    def is_whole(self, *path: str | int) -> bool:
        """Whether all keys or items of a part are known, so that absent ones are really missing.

        Their values may be unread.
        """
        if not self.unread:
            return True
        return self.unread.isdisjoint(path[:length] for length in range(1, len(path) + 1))

    def is_known(self, job: str, *keys: str) -> bool:
        """Whether all of these keys of a job are known to be present or missing."""
        return not self.unread or all(self.is_whole("jobs", job, key) for key in keys)

    def find(self, name: str) -> JobSpec | None:
        """Return the job declared under `name`, or None."""
        return next((job for job in self.jobs if job.name == name), None)
