"""`flowq worker --allow 'shop.*'`: what is not allowed is neither executed nor imported."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import ipaddress
import os
import pathlib
import pickle
import re
import subprocess
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import forbidden_marks
import pytest
from allowed_shop import models
from redis import Redis
from rq import Callback, Retry
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer, PickleSerializer

from flowq import allowed
from flowq.allowed import Allowed, read_allowed
from flowq.callables import find_callable
from flowq.client import submit
from flowq.compiling import compile_plan
from flowq.errors import NotAllowed, UsageError
from flowq.runtime import unpickling
from flowq.runtime.queue import Queue
from flowq.runtime.results import get_failures, get_result, read_end
from flowq.runtime.waiting import Wait
from tests.reading import parse_workflow

Drain = Callable[..., Any]
SHOP = Allowed(("allowed_shop.*",))


@pytest.fixture
def restrict() -> Iterator[Callable[[Allowed], None]]:
    """`restrict(allowed)`: as a child does, for this test."""
    loads = PickleSerializer.loads
    yield unpickling.restrict
    allowed.restrict(None)
    PickleSerializer.loads = loads


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "allowed_shop.tasks.charge",
        "allowed_shop.tasks:charge",
        "allowed_shop:tasks.charge",
        "allowed_shop.cached",
        "allowed_shop.models.Order",
        "allowed_shop.models.Order.make",
        "flowq.runtime.work.perform",
        "flowq.runtime.outputs.keep_outputs",
    ],
)
def test_what_is_defined_in_an_allowed_module_is_found(
    name: str, restrict: Callable[[Allowed], None]
) -> None:
    restrict(SHOP)
    assert callable(find_callable(name))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "os:system",
        "allowed_shop.os.system",
        "allowed_shop:os.system",
        "allowed_shop.processes.run",
        "allowed_shop.forbidden_marks.touch",
        "allowed_shop.tasks.get_current_job",
        "allowed_shop.of_five",
        "allowed_shop.tasks.charge.__globals__.get",
        "allowed_shop.tasks:charge.__class__",
        "allowed_shop.models.Order.__init__",
        "allowed_shop.models.Special.with_suffix",
        "allowed_shop.models.Any",
        "allowed_shop.__builtins__.get",
        "allowed_shop.__spec__.loader.load_module",
        "allowed_shop",
        "allowed_shops.tasks.charge",
        "Allowed_shop.tasks.charge",
        ".allowed_shop.tasks.charge",
        "allowed_shop..tasks",
        "allowed_shop.tasks.charge:x:y",
        "allowed_shop. os.system",
        "allowed_shop.<lambda>",
        "flowq.runtime.work.os.system",
        "flowq.runtime.shell.run",
        "flowq.callables.find_callable",
        "print",
        "eval",
        "builtins.eval",
        "",
    ],
)
def test_a_name_that_leads_anywhere_else_is_refused(
    name: str, restrict: Callable[[Allowed], None]
) -> None:
    restrict(SHOP)
    with pytest.raises(NotAllowed, match="this worker runs only allowed_shop"):
        find_callable(name)


def test_one_name_admits_that_wherever_it_was_defined(restrict: Callable[..., None]) -> None:
    restrict(Allowed(("allowed_shop.of_five", "os.getpid", "allowed_shop.models.Order.*")))
    assert find_callable("allowed_shop.of_five")() == 5
    assert find_callable("os.getpid") is os.getpid
    assert find_callable("allowed_shop.models.Order.make")(3) == 3
    for name in ("os.getppid", "allowed_shop.tasks.charge", "allowed_shop.models.Color"):
        with pytest.raises(NotAllowed):
            find_callable(name)


def test_the_refusal_says_what_it_is_and_what_to_do(restrict: Callable[..., None]) -> None:
    restrict(SHOP)
    with pytest.raises(NotAllowed) as refused:
        find_callable("allowed_shop.os.system")
    assert str(refused.value) == (
        "allowed_shop.os.system (it is in the module os) is not allowed here: this worker runs "
        "only allowed_shop.*; if it should be, start the worker with --allow "
        "allowed_shop.os.system too"
    )


@pytest.mark.parametrize(
    "pattern", ["*", "shop", "shop*", "*.tasks", "a..b", "a b.*", "a.__b__", ".*"]
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="--allow"):
        Allowed((pattern,))


def test_the_environment_speaks_where_nothing_else_does() -> None:
    said = {"FLOWQ_ALLOW": "a.*, b.c d.*", "FLOWQ_ALLOW_RUN": "1"}
    assert read_allowed(None, False, {}) is None
    assert read_allowed([], False, said) is None
    assert read_allowed(None, False, said) == Allowed(("a.*", "b.c", "d.*"), True)
    assert read_allowed(["x.*"], False, said) == Allowed(("x.*",))
    assert read_allowed(None, True, {}) == Allowed((), True)
    assert read_allowed(None, False, {"FLOWQ_ALLOW": "", "FLOWQ_ALLOW_RUN": "0"}) is None


def test_what_was_to_limit_a_worker_and_says_nothing_of_sense_is_refused() -> None:
    for allow in ([""], ["a.*", " "], [","]):
        with pytest.raises(UsageError, match=r"--allow is .* names nothing"):
            read_allowed(allow, False, {})
    with pytest.raises(UsageError, match=r"FLOWQ_ALLOW is ' , ', which"):
        read_allowed(None, False, {"FLOWQ_ALLOW": " , "})
    with pytest.raises(UsageError, match="FLOWQ_ALLOW_RUN is 'false'"):
        read_allowed(None, False, {"FLOWQ_ALLOW": "a.*", "FLOWQ_ALLOW_RUN": "false"})


# Data --------------------------------------------------------------------------------------------

ZONE = zoneinfo.ZoneInfo("Europe/Berlin")
ADMITTED = [
    {"a": [1, 2.5, None, True, "ü", b"x", (1,), {2}, frozenset({3}), 1j, range(3), slice(1)]},
    [bytearray(b"x"), datetime.datetime(2026, 1, 2, tzinfo=ZONE), datetime.timedelta(1)],
    [datetime.datetime.now(datetime.UTC), datetime.date(2026, 1, 2), datetime.time(1)],
    [decimal.Decimal("1.5"), fractions.Fraction(1, 3), uuid.UUID(int=5)],
    [pathlib.Path("a"), pathlib.PureWindowsPath("b"), ipaddress.ip_address("10.0.0.1")],
    [collections.OrderedDict(a=1), collections.Counter("ab"), collections.deque([1])],
    [collections.defaultdict(list, a=[1]), types.SimpleNamespace(a=1)],
    [models.Color.RED, models.Order(1), models.Order.Line("x"), models.Pair(1, 2)],
]


@pytest.mark.parametrize("value", ADMITTED, ids=range(len(ADMITTED)))
@pytest.mark.parametrize("protocol", [4, pickle.HIGHEST_PROTOCOL])
def test_plain_data_and_classes_of_allowed_modules_are_read(
    value: Any, protocol: int, restrict: Callable[..., None]
) -> None:
    restrict(SHOP)
    assert PickleSerializer.loads(pickle.dumps(value, protocol)) == value


def test_exceptions_and_retries_are_read(restrict: Callable[..., None]) -> None:
    restrict(SHOP)
    values = [KeyError("a"), models.Refused("b"), Retry(3), Wait("who?"), ZONE]
    read = PickleSerializer.loads(pickle.dumps(values))
    assert list(map(type, read)) == list(map(type, values))
    assert read[1].args == ("b",)


def test_classes_of_allowed_modules_that_libraries_have_made_are_read(
    restrict: Callable[..., None],
) -> None:
    pytest.importorskip("pydantic")
    pytest.importorskip("attrs")
    from allowed_shop import records

    values = [records.Item(1), records.Form(name="a", items=[1])]
    restrict(SHOP)
    assert PickleSerializer.loads(pickle.dumps(values)) == values


def test_what_numpy_needs_is_what_the_page_says(restrict: Callable[..., None]) -> None:
    numpy = pytest.importorskip("numpy")
    page = Path(__file__).parents[2] / "docs" / "security.md"
    names = re.findall(r"--allow (numpy[.\w]*)", page.read_text("utf-8"))
    written = PickleSerializer.dumps(numpy.array([1, 2]))
    restrict(Allowed(tuple(names)))
    assert PickleSerializer.loads(written).tolist() == [1, 2]
    restrict(SHOP)
    with pytest.raises(NotAllowed, match="numpy"):
        PickleSerializer.loads(written)


class Call:
    """A pickle that calls something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def named(module: str, name: str) -> bytes:
    """Return a pickle that is nothing but what has that name."""
    return (
        pickle.PROTO
        + b"\x04"
        + b"".join(
            pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode() for text in (module, name)
        )
        + pickle.STACK_GLOBAL
        + pickle.STOP
    )


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Call(os.system, "true")),
        pickle.dumps(Call(subprocess.Popen, "true")),
        pickle.dumps(Call(eval, "1")),
        pickle.dumps(Call(getattr, models.Order, "make")),
        pickle.dumps(Call(models.function)),
        pickle.dumps(Call(pathlib.Path.touch, pathlib.Path("mark"))),
        pickle.dumps(Call(partial(models.function))),
        pickle.dumps(forbidden_marks.Plain()),
        pickle.dumps(forbidden_marks.Plain),
        pickle.dumps(Call(getattr, pathlib.Path, "touch"), 2),
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\nexec\n(S'1'\ntR.",
        named("allowed_shop", "os.system"),
        named("allowed_shop.tasks", "charge.__globals__"),
        named("allowed_shop", "models.Order.__init__"),
        named("forbidden_shop", "Thing"),
        named("datetime", "sys.modules"),
        named("datetime", "datetime.now"),
        named("flowq.plan", "importlib"),
        named("flowq.spec", "Workflow.__init__"),
        named("builtins", "type"),
        named("builtins", "BaseException.__init__"),
        named("", "x"),
    ],
)
def test_a_pickle_that_names_anything_else_is_refused(
    data: bytes, restrict: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    restrict(SHOP)
    with pytest.raises((NotAllowed, pickle.UnpicklingError)):
        PickleSerializer.loads(data)
    assert "forbidden_shop" not in sys.modules
    assert not list(tmp_path.iterdir())


def test_nothing_in_flowq_finds_code_or_reads_pickles_of_jobs_in_another_way() -> None:
    root = Path(allowed.__file__).parent
    reading = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for words in ("pickle.load", "import_attribute", "Unpickler(", "cloudpickle", "dill")
        if words in path.read_text("utf-8")
    }
    # In workers a child reads what its supervisor sends, and finds the handlers that options name.
    assert reading == {
        "runtime/unpickling.py",
        "workers/child/execute.py",
        "workers/child/main.py",
        "workers/processes/fork.py",
    }


# Workers -----------------------------------------------------------------------------------------


def error_of(job: RQJob) -> str:
    result = job.latest_result()
    return str(result.exc_string) if result is not None else ""


def enqueue_by_name(queue: Queue, name: str, *arguments: Any, **options: Any) -> RQJob:
    return queue.enqueue_call(name, args=arguments, **options)


def refused_jobs(queue: Queue, mark: str) -> dict[str, RQJob]:
    add = partial(enqueue_by_name, queue)
    charge = "allowed_shop.tasks.charge"
    forbidden = Callback("forbidden_shop.run")
    jobs = {
        "call": add("forbidden_shop.run", retry=Retry(3)),
        "builtin": add("print"),
        "walk": add("allowed_shop.forbidden_marks.touch", mark, retry=Retry(3, 1)),
        "argument": add(charge, forbidden_marks.Touch(mark), retry=Retry(2)),
        "class": add(charge, forbidden_marks.Plain()),
        "meta": add(charge, meta={"a": forbidden_marks.Touch(mark)}),
        "success": add(charge, on_success=forbidden),
        "failure": add(charge, on_failure=forbidden),
        "stopped": add(charge, on_stopped=forbidden),
        "counted": add("os.system", "true", on_failure=Callback("allowed_shop.tasks.count")),
    }
    method = queue.create_job(models.Order(5).pay)
    method._instance, method._func_name = pathlib.Path(mark), "touch"
    jobs["method"] = queue.enqueue_job(method)
    return jobs


def admitted_jobs(queue: Queue) -> dict[str, Any]:
    add = partial(enqueue_by_name, queue)
    note = Callback("allowed_shop.tasks.note")
    return {
        "plain": add("allowed_shop.tasks.charge", 3, on_success=note, meta={"a": ADMITTED[1]}),
        "order": add("allowed_shop.tasks.charge", models.Order(2)),
        "method": queue.enqueue(models.Order(5).pay),
    }


@pytest.mark.parametrize("mode", ["warm", "fork", "multiprocessing"])
def test_a_worker_fails_what_it_must_not_run_once_and_imports_nothing_of_it(
    mode: str,
    queue: Queue,
    drain: Drain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("FORBIDDEN_MARK", str(mark))
    refused, admitted = refused_jobs(queue, str(mark)), admitted_jobs(queue)
    mark.unlink(missing_ok=True)  # `meta` is read back where it is written
    drain(mode=mode, allow=["allowed_shop.*"])

    assert not mark.exists()
    for name, job in refused.items():
        assert job.get_status() == "failed", name
        assert "is not allowed here: this worker runs only allowed_shop.*" in error_of(job), name
        assert len(job.results()) == 1, name
    assert not queue.scheduled_job_registry.get_job_ids()
    assert queue.connection.get(f"called:{refused['counted'].id}") == b"1"
    assert {name: job.get_status() for name, job in admitted.items()} == dict.fromkeys(
        admitted, "finished"
    )
    assert [job.return_value() for job in admitted.values()] == [3, models.Order(2), 5]


def test_jobs_that_are_kept_as_json_are_matched_too(queue: Queue, drain: Drain) -> None:
    plain = Queue(connection=queue.connection, serializer=JSONSerializer)
    bad = enqueue_by_name(plain, "os.getpid")
    good = enqueue_by_name(plain, "allowed_shop.tasks.charge", 4)
    drain(allow=["allowed_shop.*"], serializer="json")
    assert bad.get_status() == "failed"
    assert "os.getpid is not allowed here" in error_of(bad)
    assert good.return_value() == 4


FLOW = """
name: flow
outputs: {paid: "${{ jobs.paid.result }}", strange: "${{ jobs.strange.result }}"}
defaults: {continue_on_error: true}
jobs:
  paid: {call: allowed_shop.tasks:charge, with: {amount: 3}}
  live: {call: allowed_shop.tasks:charge, with: {amount: "${{ jobs.paid.result + 1 }}"}}
  many:
    for_each: "${{ [jobs.paid.result, 4] }}"
    call: allowed_shop.tasks:charge
    with: {amount: "${{ item }}"}
  bad: {call: forbidden_shop:run, retries: 2}
  bad_live: {call: forbidden_shop:run, with: {x: "${{ jobs.paid.result }}"}, retries: 2}
  bad_walk: {call: "allowed_shop:os.system", with: {command: "touch MARK"}}
  bad_many: {for_each: [1], call: "forbidden_shop:run", with: {x: "${{ item }}"}}
  command: {run: "touch MARK", retries: 2}
  list_command: {run: [touch, MARK]}
  strange: {call: allowed_shop.tasks:make_strange}
  reads: {call: allowed_shop.tasks:charge, with: {x: "${{ jobs.strange.result }}"}, retries: 2}
"""
REFUSED = {
    "bad": "forbidden_shop.run is not allowed here",
    "bad_live": "forbidden_shop.run is not allowed here",
    "bad_walk": "allowed_shop.os.system (it is in the module os) is not allowed here",
    "bad_many--0": "forbidden_shop.run is not allowed here",
    "command": "a command is not allowed here: this worker runs only allowed_shop.*; `run:` jobs "
    "need a worker with --allow-run",
    "list_command": "a command is not allowed here",
    "reads": "forbidden_marks.Plain is not allowed here",
}


def test_in_a_run_the_inner_calls_are_matched_and_commands_need_a_word_of_their_own(
    connection: Redis, drain: Drain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("FORBIDDEN_MARK", str(mark))
    text = FLOW.replace("MARK", str(mark))
    plan = compile_plan(parse_workflow(text, "flow.yaml"), {}, run_id="r", imports=False)
    run = submit(plan, connection)
    drain(allow=["allowed_shop.*"])
    assert not mark.exists()
    failures = get_failures([f"r-{name}" for name in REFUSED], connection)
    for name, words in REFUSED.items():
        text = failures[f"r-{name}"].traceback
        assert text.startswith(f"flowq.errors.NotAllowed: {words}"), name
        assert read_end(f"r-{name}", connection).attempts == 1, name
    states = {job.job_id.removeprefix("r-"): job.state for job in run.status().jobs.values()}
    assert {states[name] for name in ("paid", "live", "many--0", "many--1")} == {"finished"}
    kept = run.kept_outputs()
    assert kept.views == {"paid": 3}
    assert kept.errors["strange"].startswith("forbidden_marks.Plain is not allowed here")


def test_commands_are_executed_with_allow_run_and_then_alone(
    connection: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = "name: f\njobs: {a: {run: echo hi}, b: {call: 'os:getpid', continue_on_error: true}}"
    plan = compile_plan(parse_workflow(flow, "f.yaml"), {}, run_id="r", imports=False)
    submit(plan, connection)
    command = [sys.executable, "-m", "flowq", "worker", "--burst", "--redis-url", redis_url]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    wrong = run([*command, "--allow", "shop"])
    assert wrong.returncode == 2
    assert "--allow shop: it takes 'shop.*' for everything that is defined in shop" in wrong.stderr
    monkeypatch.setenv("FLOWQ_ALLOW_RUN", "1")
    worker = run(command)
    assert worker.returncode == 0, worker.stderr
    assert "running only commands" in worker.stdout + worker.stderr
    assert get_result("r-a", connection) == "hi"
    assert "os.getpid is not allowed here" in get_failures(["r-b"], connection)["r-b"].traceback
