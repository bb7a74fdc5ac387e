"""`flowq worker` has every option of `rq worker`, or refuses it with what to write instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import redis
from rq.cli.workers import worker as rqs

from flowq.cli import rq_options, worker
from flowq.client import submit
from flowq.compiling import compile_plan
from flowq.errors import UsageError
from flowq.runtime.queue import Queue
from tests.cli.commands import Flowq, Said
from tests.reading import parse_workflow

ROOT = Path(__file__).parents[2]
OURS = {name for option in worker.command.params for name in option.opts}


@pytest.fixture(autouse=True)
def _own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config` adds folders, which is right for a process of its own."""
    monkeypatch.setattr("sys.path", [*sys.path])


def options_of(command: click.Command) -> list[click.Parameter]:
    return [each for each in command.params if isinstance(each, click.Option)]


@pytest.mark.parametrize("option", options_of(rqs), ids=lambda option: str(option.name))
def test_each_option_of_rq_is_here_by_all_its_names_or_is_refused(option: click.Option) -> None:
    name = next(name for name in option.opts if name.startswith("--"))
    assert name in rq_options.EQUIVALENTS, "a new option: support it, or say what to write instead"
    equivalent = rq_options.EQUIVALENTS[name]
    assert bool(equivalent.option) != bool(equivalent.instead)
    taken = {"-c"}  # the number of jobs at a time
    missing = {*option.opts} - OURS - taken
    assert not missing


def test_no_option_is_in_the_table_that_rq_does_not_have() -> None:
    theirs = {name for option in options_of(rqs) for name in option.opts}
    assert set(rq_options.EQUIVALENTS) <= theirs


def test_the_page_has_a_row_for_each_option() -> None:
    page = (ROOT / "docs" / "rq.md").read_text("utf-8")
    table = page[page.index("## Options of `rq worker`") :]
    rows = [line for line in table.splitlines() if line.startswith("| `-")]
    assert sorted(line.split("`")[1] for line in rows) == sorted(rq_options.EQUIVALENTS)
    for row in rows:
        is_same = bool(rq_options.EQUIVALENTS[row.split("`")[1]].option)
        assert is_same == (row.split("|")[2].strip() != "refused"), row


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-w", "rq.SimpleWorker"), "has no --worker-class: flowq worker is flowq.Worker"),
        (("--connection-class", "a.B"), "name the server with --redis-url"),
        (("-c", "settings"), "the option for a module of settings is --config settings"),
        (("--config", "nowhere"), "No module named 'nowhere'"),
        (("--config", "wrong_settings"), "its DICT_CONFIG is wrong"),
        (("--exception-handler", "nowhere.handle"), "there is no module nowhere"),
        (("--exception-handler", "handle"), "it has no dot"),
        (("--pid", "no/folder/pid"), "--pid no/folder/pid: No such file or directory"),
        (("--queue-class", "builtins.list"), "list is not a subclass of flowq.Queue"),
    ],
)
def test_what_is_refused_is_said_in_one_line_with_what_to_write(
    call: Callable[..., Said], folder: Path, redis_url: str, words: tuple[str, ...], told: str
) -> None:
    (folder / "wrong_settings.py").write_text("DICT_CONFIG = {'version': 9}\n")
    said = call("worker", *words, "--burst", "-q", "--redis-url", redis_url)
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert told in said.err


SHOP = """
import logging

def note(job, kind, error, traceback):
    with open("noted", "a") as file:
        file.write(f"{job.id} {kind.__name__}\\n")
    return True

def pay(n):
    logging.getLogger("shop").info("paying %s", n, extra={"job_id": 7})
    return 1 / n
"""
WORKFLOW = """
jobs:
  pay: {call: "shop:pay", with: {n: 0}, retries: 1}
"""


@pytest.mark.parametrize("mode", ["fork", "warm", "multiprocessing"])
def test_json_logs_have_run_job_and_attempt_and_handlers_are_called(
    flowq: Flowq, connection: redis.Redis, redis_url: str, folder: Path, mode: str
) -> None:
    (folder / "shop.py").write_text(SHOP)
    run = submit(compile_plan(parse_workflow(WORKFLOW, "w.yaml"), imports=False), connection)
    words = ("--mode", mode, "--log-format", "json", "--exception-handler", "shop.note")
    done = flowq("worker", "--url", redis_url, "-b", *words, "--pid", "here")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
    assert f"working on default at {redis_url}" in {record["message"] for record in records}
    names = {"at", "level", "logger", "message", "run", "job", "item", "attempt", "job_id"}
    assert all(names <= set(record) for record in records)
    of_job = [record for record in records if record["job"]]
    paying = [record for record in of_job if record["logger"] == "shop"]
    assert [(record["message"], record["attempt"]) for record in paying] == [
        ("paying 0", 1),
        ("paying 0", 2),
    ]
    failed = [record for record in of_job if "ZeroDivisionError" in record["message"]]
    assert [record["attempt"] for record in failed] == [1, 2]
    assert {(record["run"], record["job"]) for record in of_job} == {(run.run_id, "pay")}
    assert {record["job_id"] for record in of_job} == {f"{run.run_id}-pay"}
    assert (folder / "noted").read_text() == f"{run.run_id}-pay ZeroDivisionError\n" * 2
    assert (folder / "here").read_text().isdecimal()


@pytest.mark.parametrize("mode", ["fork", "warm"])
def test_a_handler_that_cannot_be_imported_is_told_before_the_first_job(
    flowq: Flowq, connection: redis.Redis, redis_url: str, mode: str
) -> None:
    Queue(connection=connection).enqueue("os.getpid")  # otherwise it would end at once
    handler = ("--exception-handler", "json.nosuch")
    done = flowq("worker", "--url", redis_url, "-b", "-q", "--mode", mode, *handler)
    assert done.returncode == 2
    reason = "cannot import the exception handler json.nosuch: ValueError: Invalid attribute name"
    assert done.stderr == f"flowq: {reason}: nosuch\n"


def test_settings_name_the_server_the_queues_and_the_worker(
    call: Callable[..., Said], folder: Path, connection: redis.Redis, redis_url: str
) -> None:
    settings = f"REDIS_URL = {redis_url!r}\nQUEUES = ['mails']\nNAME = 'postman'\n"
    (folder / "post_settings.py").write_text(settings)
    job = Queue("mails", connection=connection).enqueue("os.getpid")
    said = call("worker", "--config", "post_settings", "--burst", "--log-format", "%(message)s!")
    assert said.code == 0, said.err
    job.refresh()
    assert (job.get_status(), job.worker_name) == ("finished", "postman")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ("", "redis://localhost:6379/0"),
        ("REDIS_HOST = 'a'; REDIS_PORT = 1; REDIS_DB = 2", "redis://a:1/2"),
        ("REDIS_PASSWORD = 'p@/'", "redis://:p%40%2F@localhost:6379/0"),
        ("REDIS_HOST = '::1'", "redis://[::1]:6379/0"),
        ("REDIS_SSL = 'yes'; REDIS_SSL_CA_CERTS = '/c a'",
         "rediss://localhost:6379/0?ssl_ca_certs=%2Fc+a"),
        ("SENTINEL = {'INSTANCES': [('a', 1), ('b', 2)], 'MASTER_NAME': 'm', 'DB': 3, "
         "'PASSWORD': 'p', 'SENTINEL_KWARGS': {'password': 's'}}",
         "redis+sentinel://:p@a:1,b:2/m/3?sentinel_password=s"),
    ],
)  # fmt: skip
def test_settings_become_the_url_of_the_server_that_rq_would_connect_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, url: str
) -> None:
    name = f"settings_{abs(hash(settings))}"
    (tmp_path / f"{name}.py").write_text(settings)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    assert rq_options.read_settings(name).url == url


@pytest.mark.parametrize(
    "settings",
    ["SENTINEL = {'SSL': True}", "REDIS_SSL = 'y'; REDIS_SSL_CA_DATA = 'x'",
     "SENTINEL = {'SENTINEL_KWARGS': {'db': 1}}"],
)  # fmt: skip
def test_settings_that_no_url_can_say_are_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    name = f"settings_{abs(hash(settings))}"
    (tmp_path / f"{name}.py").write_text(settings)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    with pytest.raises(UsageError, match="cannot be written in a URL; pass --redis-url"):
        rq_options.read_settings(name)
