"""RQ's `depends_on` together with our holds: ours first, RQ's last."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import redis
from rq.job import Dependency
from rq.job import Job as RQJob

from flowq.runtime import scripts, steps
from flowq.runtime.job import Job, get_job
from flowq.runtime.queue import Queue

Work = Callable[..., None]
EdgeOf = Callable[[Job, Job], str]
Tidy = Callable[[], None]


@pytest.mark.parametrize("plain", [False, True], ids=["our worker", "RQ's worker"])
@pytest.mark.parametrize("ends", ["before the release", "after the release", "in a release"])
@pytest.mark.parametrize("kind", ["blocker", "future"])
def test_a_held_job_with_depends_on_waits_for_both(
    queue: Queue,
    connection: redis.Redis,
    work: Work,
    work_plainly: Work,
    plain: bool,
    ends: str,
    kind: str,
) -> None:
    def run_dependency() -> None:
        (work_plainly if plain else work)(max_jobs=1)

    dependency = queue.enqueue("operator.add", 0, 0)
    if kind == "future":
        held = future = queue.enqueue("operator.add", 1, 2, deferred=True, depends_on=dependency)
    else:
        future = queue.enqueue("operator.add", 1, 2, deferred=True)
        held = queue.enqueue("operator.add", 1, 1, blocked_by=future, depends_on=dependency)
    if ends == "before the release":
        run_dependency()
        assert held.get_status() == "deferred", "our holds first"
        future.release()
    elif ends == "in a release":
        scripts.RELEASE.call(connection, future.key, future.id)
        run_dependency()
        steps.run_steps(connection)
    else:
        future.release()
        assert held.get_status() == "deferred", "RQ's hold last"
        assert connection.sismember(dependency.dependents_key, held.id)
        run_dependency()
    work()
    assert (held.get_status(), future.get_status()) == ("finished", "finished")
    assert connection.zcard("rq:deferred:default") == 0


def test_a_release_between_rqs_look_at_the_dependents_and_its_commit_is_not_lost(
    queue: Queue, work_plainly: Work, work: Work, monkeypatch: Any
) -> None:
    dependency = queue.enqueue("operator.add", 0, 0)
    future = queue.enqueue("operator.add", 1, 2, deferred=True, depends_on=dependency)
    commits = []
    handle_success = RQJob._handle_success

    def release_first(job: RQJob, *args: Any, **kwargs: Any) -> None:
        if not commits:
            future.release()
            assert future.get_status() == "deferred"
        commits.append(job.id)
        handle_success(job, *args, **kwargs)

    monkeypatch.setattr(RQJob, "_handle_success", release_first)
    work_plainly(max_jobs=1)
    assert commits == [dependency.id] * 2
    work()
    assert future.get_status() == "finished"


def test_a_failed_dependency_holds_unless_failures_are_allowed(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    dependency = queue.enqueue("runtime_jobs.fail")
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    strict = queue.enqueue("operator.add", 1, 1, blocks=future, depends_on=dependency)
    lenient = queue.enqueue(
        "operator.add", 1, 1, blocks=future, depends_on=Dependency(dependency, allow_failure=True)
    )
    work()
    future.release()
    assert (strict.get_status(), lenient.get_status()) == ("deferred", "queued")
    work()
    get_job(dependency.id, connection).delete()
    assert strict.get_status() == "deferred", "as RQ leaves it"
    strict.delete()
    work()
    assert future.get_status() == "finished"


def test_a_job_may_depend_on_a_future_job(queue: Queue, work: Work) -> None:
    future = queue.enqueue("operator.add", 1, 2, deferred=True)
    after = queue.enqueue("operator.add", 1, 2, depends_on=future)
    blocker = queue.enqueue("operator.add", 1, 2, blocked_by=future)
    work()
    assert after.get_status() == "deferred"
    future.release()
    work()
    assert [job.get_status() for job in (blocker, future, after)] == ["finished"] * 3


def test_while_only_depends_on_holds_it_a_future_job_still_takes_blockers(
    queue: Queue, connection: redis.Redis, work: Work
) -> None:
    slow = Queue("slow", connection=connection)
    dependency = slow.enqueue("operator.add", 0, 0)
    future = queue.enqueue("operator.add", 1, 2, deferred=True, depends_on=dependency)
    future.release()
    late = queue.enqueue("operator.add", 1, 1, blocked_by=future)
    work(None, "slow")
    assert future.get_status() == "deferred"
    work()
    assert (late.get_status(), future.get_status()) == ("finished", "finished")


@pytest.mark.parametrize("order", [*itertools.permutations(["depends", "release", "blocker"])])
def test_a_future_job_with_depends_on_and_a_blocker_in_every_order(
    queue: Queue, connection: redis.Redis, work: Work, order: tuple[str, ...]
) -> None:
    first, second = Queue("first", connection=connection), Queue("second", connection=connection)
    dependency = first.enqueue("operator.add", 0, 0)
    future = queue.enqueue("operator.add", 1, 2, deferred=True, depends_on=dependency)
    other = queue.enqueue("operator.add", 1, 2, deferred=True)
    second.enqueue("operator.add", 1, 1, blocked_by=[future, other])
    other.release()
    done = set()
    for act in order:
        assert future.get_status() == "deferred"
        if act == "release":
            future.release()
        else:
            work(None, "first" if act == "depends" else "second")
        done.add(act)
    work(None, "second", "default")
    assert future.get_status() == "finished"
