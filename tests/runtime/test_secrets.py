"""`${{ secrets.NAME }}`: read where the job runs, hidden in what is shown, and never in Redis."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.expressions.refusals import Missing
from flowq.graph import build_graph
from flowq.planner import make_plan
from flowq.runtime import approvals, keys
from flowq.runtime.planned import call_of
from flowq.runtime.secrets import FOLDER, Secrets
from flowq.spec import Approval, Input, Retry, Shell, Workflow
from tests.runtime.language import Runs, each, job

Work = Callable[..., None]
VALUE = "hunter2 hunter2"


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def read(name: str, **environment: str) -> str:
    return Secrets(environment, lambda value: None)[name]


def kept_in(connection: Redis) -> bytes:
    return b"".join(connection.dump(key) or b"" for key in connection.keys("*"))


# Where it is looked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"abc\n\n", "abc\n"),
        (b" a\nb \n", " a\nb "),
        (b"", ""),
        (b"caf\xe9", "caf\udce9"),
    ],
)
def test_a_file_is_the_secret_without_one_line_end(
    content: bytes, value: str, tmp_path: Path
) -> None:
    (tmp_path / "db-password").write_bytes(content)
    assert read("db-password", FLOWQ_SECRETS_DIR=str(tmp_path)) == value


def test_a_file_comes_before_a_variable_and_a_variable_is_enough(tmp_path: Path) -> None:
    (tmp_path / "A").write_text("of the file")
    given = {FOLDER: str(tmp_path), "A": "of the variable", "B": "of the variable"}
    assert read("A", **given) == "of the file"
    assert read("B", **given) == "of the variable"
    assert read("B", B="") == ""


def test_the_error_says_where_a_secret_was_looked_for(tmp_path: Path) -> None:
    for given, place in (
        ({}, "in the variable A of the worker; FLOWQ_SECRETS_DIR, which may name a folder"),
        ({FOLDER: str(tmp_path)}, f"in the file {tmp_path / 'A'}, then in the variable A"),
        ({FOLDER: str(tmp_path / "nowhere")}, f"in the file {tmp_path / 'nowhere' / 'A'}"),
    ):
        with pytest.raises(Missing) as caught:
            read("A", **given)
        assert caught.value.message == "there is no secret A where the job runs"
        assert place in caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(Missing, match="cannot be read from"):
        read("folder", FLOWQ_SECRETS_DIR=str(tmp_path))


# In a run ----------------------------------------------------------------------------------------


def test_a_secret_stands_where_values_stand_and_is_nowhere_in_redis(
    run: Runs,
    work: Work,
    connection: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "FILE").write_text(f"{VALUE}\n")
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("TOKEN", VALUE)
    twice = "$(printf 'hunter2 %s' hunter2)"  # the value itself is written nowhere
    check = "import sys; sys.exit(sys.argv[1:] != ['hunter2 ' * 2 + 'x'])"
    nested = Workflow("inner", (job("say", "say", with_={"text": "${{ secrets.TOKEN }}"}),))
    run.submit(
        job("text", run=Shell(f'test ${{{{ secrets.TOKEN }}}} = "{twice}"')),
        job("list", run=Shell(("python3", "-c", check, "${{ secrets.FILE }} x"))),
        job("each", "fail", for_each=each(["a"]), with_={"message": "${{ item ~ secrets.TOKEN }}"}),
        job("variable", run=Shell(f'test "$X" = "a {twice}" && exit 3')),
        job("inner", workflow="inner"),
        env={"X": "a ${{ secrets.FILE }}"},
        workflows={"inner": nested},
    )
    assert VALUE.encode() not in kept_in(connection)
    work()
    assert run.states["text"] == run.states["list"] == "finished"
    assert run.states["inner.say"] == "finished"
    assert "exit code 3" in run.error("variable")
    assert "ValueError: ***" in run.error("each--0")
    printed = capfd.readouterr()
    assert VALUE not in printed.out + printed.err
    assert "they said ***" in printed.out
    for key in (b"rq:job:r1-text", b"rq:job:r1-list", b"rq:job:r1-each--0", b"rq:job:r1-variable"):
        for field, value in connection.hgetall(key).items():
            assert VALUE.encode() not in value, (key, field)
    view: Any = connection.hget("rq:job:r1-list", "flowq_view")
    assert "'*** x'" in json.loads(view)["arguments"]["command"]


@pytest.mark.parametrize("command", ["echo ${{ secrets.ODD }}", ("echo", "${{ secrets.ODD }}")])
def test_a_secret_that_quotes_change_is_hidden_in_the_shown_command(
    command: Any, run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODD", "it's secret")
    run.submit(job("a", run=Shell(command)))
    work()
    view: Any = run.connection.hget("rq:job:r1-a", "flowq_view")
    assert json.loads(view)["arguments"]["command"] in ("echo '***'", "echo ***")


def test_the_jobs_own_environment_and_folder_do_not_change_its_secrets(
    run: Runs, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault" / "FILE").write_text("of the file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FOLDER, "vault")
    monkeypatch.setenv("TOKEN", "of the worker")
    run.submit(
        job(
            "a",
            run=Shell(("echo", "${{ secrets.FILE }}, ${{ secrets.TOKEN }}, ${{ env.TOKEN }}")),
            env={"TOKEN": "of the job", FOLDER: "elsewhere"},
            cwd="vault",
        )
    )
    work()
    assert run.result("a") == "of the file, of the worker, of the job"


def test_a_secret_that_is_not_there_fails_the_job_and_default_does_without(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    run.submit(
        job("none", run=Shell(("echo", "${{ secrets.NONE_4711 }}"))),
        job("some", run=Shell(("echo", "${{ secrets.NONE_4711 | default('no') }}"))),
    )
    work()
    assert "there is no secret NONE_4711 where the job runs" in run.error("none")
    assert run.result("some") == "no"


def test_a_variable_of_the_environment_and_a_literal_are_shown_as_they_are(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLACE", "production")
    run.submit(
        job("a", run=Shell(("echo", "${{ env.PLACE }}, ${{ env.NAME }}")), env={"NAME": "hello"}),
        job("b", "say", with_={"text": "${{ env.PLACE }}"}),
        job("c", "fail", with_={"message": "not in ${{ env.PLACE }}"}),
    )
    work()
    printed = capfd.readouterr().out
    assert "production, hello\n" in printed
    assert "they said production\n" in printed
    assert "not in production" in run.error("c")


def test_each_line_of_a_secret_and_what_errors_of_expressions_and_files_say_are_hidden(
    run: Runs,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PEM", "-----BEGIN-----\nabcdefgh\n")
    monkeypatch.setenv("TOKEN", VALUE)
    run.submit(
        job("lines", run=Shell('echo "$PEM"'), env={"PEM": "${{ secrets.PEM }}"}),
        job("sum", "say", with_={"text": "${{ 1 + secrets.TOKEN }}"}),
        job("file", "note", with_={"path": "/nowhere/${{ secrets.TOKEN }}", "text": 1}),
    )
    work()
    assert "abcdefgh" not in capfd.readouterr().out
    for name in ("sum", "file"):
        assert "***" in run.error(name)
        assert VALUE not in run.error(name)


# In results --------------------------------------------------------------------------------------


def view_of(connection: Redis, name: str) -> dict[str, Any]:
    view: Any = connection.hget(f"rq:job:r1-{name}", "flowq_view")
    found: dict[str, Any] = json.loads(view)
    return found


def test_a_result_with_a_secret_reaches_other_jobs_and_is_hidden_wherever_it_is_shown(
    run: Runs,
    work: Work,
    connection: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    nested = Workflow(
        "inner",
        (job("say", "say", with_={"text": "${{ inputs.text }}"}),),
        inputs=(Input("text"),),
        outputs={"said": "${{ jobs.say.result }}"},
    )
    given = "${{ jobs.a.result }}"
    asked = Approval("Is it ${{ jobs.a.result[0] }}?")
    run.submit(
        job("a", "give", with_={"value": ["${{ secrets.TOKEN }}", "other"]}),
        job("ask", "my_id", approval=asked),
        job("keyed", "my_id", for_each=each(given, key="item")),
        job("b", "give", with_={"value": given}),
        job("c", "say", with_={"text": "${{ jobs.b.result[0] }}"}),
        job("each", "say", for_each=each(given), with_={"text": "${{ item }}"}),
        job("inner", workflow="inner", with_={"text": "${{ jobs.b.result[0] }}"}),
        job("after", "fail", with_={"message": "${{ jobs.inner.result.said }}"}),
        job("num", "square", with_={"number": 3}, needs=("a",)),
        env={"GIVEN": "${{ secrets.TOKEN }}"},
        workflows={"inner": nested},
        outputs={"b": "${{ jobs.b.result }}", "n": "${{ jobs.num.result }}"},
    )
    work()
    assert approvals.approve("r1", "ask", connection)
    work()
    assert VALUE not in str(connection.xrange(keys.run_events("r1")))
    assert "keyed[***]" in run.states
    assert connection.hget("rq:job:r1-ask", "flowq_message") == b"Is it ***?"
    assert run.result("c") == VALUE
    assert run.result("b") == [VALUE, "other"]
    assert run.result("inner") == {"said": VALUE}
    for name, shown in (
        ("b", {"arguments": {"value": ["***", "other"]}, "result": ["***", "other"]}),
        ("c", {"arguments": {"text": "***"}, "result": "***"}),
        ("each--0", {"arguments": {"text": "***"}, "result": "***"}),
        ("each--1", {"arguments": {"text": "other"}, "result": "other"}),
        ("inner", {"result": {"said": "***"}}),
        ("inner--say", {"arguments": {"text": "***"}, "result": "***"}),
    ):
        assert view_of(connection, name) == shown, name
    assert "ValueError: ***" in run.error("after")
    kept: Any = connection.hget("rq:flowq:1:run:r1", "kept_outputs")
    assert json.loads(kept)["views"] == {"b": ["***", "other"], "n": 9}
    for key in connection.keys("rq:job:*"):
        for field, value in connection.hgetall(key).items():
            assert VALUE.encode() not in value, (key, field)
    for name in ("a", "b", "c", "inner"):
        assert "its result contains a secret" in run.reason(name)
    assert not run.reason("num")
    call: Any = connection.hget("rq:job:r1-num", "description")
    assert b"square" in call
    printed = capfd.readouterr()
    assert VALUE not in printed.out + printed.err
    assert "they said ***" in printed.out


def test_a_job_that_may_not_return_a_secret_fails_and_is_not_tried_again(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", VALUE)
    again = Retry(3)
    refuse: Any = {"secret_results": "refuse", "retries": again}
    run.submit(
        job("a", "give", with_={"value": {"x": ["${{ secrets.TOKEN }}"]}}, **refuse),
        job("b", "say", with_={"text": "${{ 'x' ~ secrets.TOKEN | length }}"}, **refuse),
        job("c", run=Shell(("echo", "${{ secrets.TOKEN | upper }}")), **refuse),
        job("d", "my_id", secret_results="refuse"),
    )
    work()
    states = {"a": "failed", "b": "finished", "c": "failed", "d": "finished"}
    assert run.states == states
    assert "SecretInResult: the result contains a secret" in run.error("a")
    assert "SecretInResult" in run.error("c")
    assert VALUE.encode() not in kept_in(run.connection)
    assert run.status.jobs["a"].attempts == 1


def test_the_plan_names_secrets_at_jobs_that_read_results_with_them_and_at_no_others() -> None:
    given = "${{ jobs.a.result }}"
    plain = job("p", "my_id")
    jobs = (
        job("a", "give", with_={"value": "${{ secrets.A }}"}),
        job("b", "give", with_={"value": given}),
    )
    for workflow, names in (
        (Workflow("none", (plain, job("q", "give", with_={"value": "${{ jobs.p.result }}"}))), {}),
        (Workflow("some", (*jobs, plain)), {"r1-b": ("A",)}),
        (Workflow("all", (*jobs, plain), env={"B": "${{ secrets.B }}"}), {"r1-b": ("A", "B")}),
    ):
        plan = make_plan(build_graph(workflow), {}, "r1")
        assert {each.job_id: each.secrets for each in plan.enqueues if each.secrets} == names
    assert call_of(next(each for each in plan.enqueues if each.job_id == "r1-p"))[1][0]["env"]


def test_a_command_does_not_get_the_url_of_the_server_unless_it_asks_for_it(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWQ_REDIS_URL", "redis://:hunter2@localhost")
    monkeypatch.setenv("RQ_REDIS_URL", "redis://:hunter2@localhost")
    show = Shell(("sh", "-c", "echo ${FLOWQ_REDIS_URL-none} ${RQ_REDIS_URL-none}"))
    asked = {"FLOWQ_REDIS_URL": "${{ env.FLOWQ_REDIS_URL | replace('2', '3') }}"}
    run.submit(
        job("none", run=show),
        job("asked", run=show, env=asked),
        job("call", "read_env", with_={"name": "FLOWQ_REDIS_URL"}),
    )
    work()
    assert run.result("none") == "none none"
    assert run.result("asked") == "redis://:hunter3@localhost none"
    assert run.result("call")[0] == "redis://:hunter2@localhost"
