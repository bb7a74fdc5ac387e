"""`run:`: shell commands as jobs, with their output, their end, and what they may see."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from flowq.errors import UsageError
from flowq.reports import Progress
from flowq.runtime import keys, shell
from flowq.runtime.masking import Mask
from flowq.runtime.progress import set_reporter
from flowq.spec import Concurrency, Shell
from tests.runtime.language import RUN, Runs, each, job
from tests.runtime.server_processes import is_alive

pytestmark = pytest.mark.skipif(os.name == "nt", reason="commands of a POSIX shell")

Work = Callable[..., None]


@pytest.fixture
def run(connection: Redis) -> Runs:
    return Runs(connection)


def execute(command: str, values: dict[str, Any] | None = None, **more: Any) -> Any:
    found = values or {}
    return shell.run({"command": command, **more}, found.__getitem__, Mask())


def wait_until(predicate: Callable[[], bool], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not predicate():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_command_of_an_older_version_gets_its_values_as_words() -> None:
    # It has no `places`: older versions pasted each value as a quoted word.
    value = "a  b'\"$(touch mark)`touch mark`\n; touch mark"
    assert execute("printf '<%s>' x=${{ v }} ${{ v }}", {"${{ v }}": value}, result="text") == (
        f"<x={value}><{value}>"
    )
    assert not Path("mark").exists()


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("last", "[1, 2]"),
        ("text", "one\n\n[1, 2]"),
        ("lines", ["one", "", "[1, 2]"]),
    ],
)
def test_the_output_is_the_result(kind: str, result: Any) -> None:
    assert execute("echo one; echo; echo '[1, 2]'", result=kind) == result


def test_json_is_read_and_what_is_none_is_refused() -> None:
    assert execute("echo '{\"a\": 1}'", result="json") == {"a": 1}
    with pytest.raises(ValueError, match="the output is not JSON"):
        execute("echo {", result="json")


def test_output_goes_on_to_where_the_job_prints(capsys: pytest.CaptureFixture[str]) -> None:
    execute("echo out; echo err >&2")
    assert tuple(capsys.readouterr()) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("kind", "result"), [("last", "{}"), ("text", "{}"), ("lines", ["{}"]), ("json", {})]
)
def test_only_the_standard_output_is_the_result(kind: str, result: Any) -> None:
    assert execute("echo before >&2; echo '{}'; echo after >&2", result=kind) == result


def test_a_command_that_writes_to_standard_error_alone_results_in_nothing() -> None:
    assert execute("echo warning >&2") == ""


def test_much_on_both_streams_is_read_at_the_same_time(capsys: pytest.CaptureFixture[str]) -> None:
    line = "x" * 1_000
    loop = f"i=0; while [ $i -lt 300 ]; do echo {line} >&2; echo {line}; i=$((i+1)); done"
    assert execute(loop, result="lines") == [line] * 300
    assert capsys.readouterr().err == f"{line}\n" * 300


def test_what_is_left_in_the_background_with_standard_error_alone_ends_too(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert execute(f"sleep 600 > /dev/null & echo $! > {pid_file}; echo done") == "done"
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


# Text that is not UTF-8 --------------------------------------------------------------------------

LATIN = os.fsdecode(b"caf\xe9.txt")


@pytest.mark.parametrize(
    ("kind", "result"), [("last", LATIN), ("text", f"a\n{LATIN}"), ("lines", ["a", LATIN])]
)
def test_output_that_is_not_utf8_keeps_its_bytes(kind: str, result: Any) -> None:
    assert execute(r"echo a; printf 'caf\351.txt\n'", result=kind) == result


def test_json_that_is_not_utf8_keeps_its_bytes() -> None:
    command = r"""printf '{"caf\351.txt": ["caf\351.txt"]}'"""
    assert execute(command, result="json") == {LATIN: [LATIN]}


def test_a_character_that_a_long_line_is_cut_in_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "MAX_RESULT_BYTES", 9)
    assert execute("printf '123456é8'", result="text") == "123456é8"  # nine bytes
    monkeypatch.setattr(shell, "MAX_RESULT_BYTES", 10)
    assert execute("printf 'é\\n234567é\\n'", result="last") == "234567é"


def test_lines_end_at_line_ends_alone() -> None:
    assert execute(r"printf 'a\fb\n\342\200\250c\r\nd\re'", result="lines") == [
        "a\fb",
        "\u2028c",
        "d",
        "e",
    ]


def test_output_that_is_not_utf8_is_shown_with_its_bytes_spelt_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(shell.ShellFailed, match=r"exit code 1: no caf\\xe9$"):
        execute(r"printf 'a caf\351\n'; printf 'no caf\351\n' >&2; exit 1")
    assert tuple(capsys.readouterr()) == ("a caf\\xe9\n", "no caf\\xe9\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file names are UTF-8")
def test_names_that_are_not_utf8_are_items_keys_arguments_and_variables(
    run: Runs, work: Work, tmp_path: Path, connection: Redis
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe8.txt")).write_bytes(b"a grave\n")
    (folder / LATIN).write_bytes(b"an acute \xe9\n")
    items = "${{ jobs.ls.result }}"
    run.submit(
        job("ls", run=Shell("ls in", result="lines"), cwd=str(tmp_path)),
        job(
            "cat",
            for_each=each(items, key="item"),
            run=Shell('cat in/${{ item }}; test -f "in/$NAME"'),
            env={"NAME": "${{ item }}"},
            cwd=str(tmp_path),
        ),
        job("call", "give", for_each=each(items, key="item"), with_={"value": "${{ item }}"}),
        job("text", run=Shell("echo ${{ jobs.cat.by_key[inputs.name] }}")),
        job("keys", "give", with_={"value": "${{ jobs.call.by_key }}"}),
        inputs={"name": LATIN},
        concurrency=Concurrency("${{ inputs.name }}"),
    )
    work()
    other = os.fsdecode(b"caf\xe8.txt")
    assert run.result("ls") == [other, LATIN]
    assert run.result("text") == os.fsdecode(b"an acute \xe9")
    assert run.result("keys") == {other: other, LATIN: LATIN}
    assert {r"cat[caf\xe8.txt]", r"cat[caf\xe9.txt]"} <= run.states.keys()
    assert run.state == "succeeded"
    assert outcomes_of(run, "cat", connection) == [other, LATIN]


def outcomes_of(run: Runs, group: str, connection: Redis) -> list[str]:
    kept = connection.hgetall(keys.group_keys(f"{RUN}-{group}"))
    return sorted(os.fsdecode(key) for key in kept)


def test_a_secret_that_is_not_utf8_is_masked(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    mask = Mask()
    mask.add([LATIN])
    shell.run({"command": r"printf 'the caf\351.txt\n'"}, str, mask)
    assert capfdbinary.readouterr().out == b"the ***\n"


@pytest.mark.parametrize(
    "evil",
    ["$(touch hacked)", "; touch hacked", "`touch hacked`", "' ; touch hacked '", "a\nb", ""],
)
def test_a_value_is_one_word_and_never_code(
    evil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = "printf '<%s>' ${{ item }} x"
    assert execute(command, {"${{ item }}": evil}, result="text") == f"<{evil}><x>"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["cmd", "pwsh", "python", "/usr/bin/python3", "fish", "perl"])
def test_a_shell_whose_quotes_are_not_known_gets_no_values(name: str) -> None:
    with pytest.raises(UsageError, match="pass them under `env:`"):
        execute("echo ${{ item }}", {"${{ item }}": "x"}, shell=name)


def test_a_place_that_is_refused_gets_no_value() -> None:
    with pytest.raises(UsageError, match="could become code"):
        execute("eval ${{ item }}", {"${{ item }}": "x"}, places="x")


def test_a_value_that_is_too_large_for_an_argument_is_named() -> None:
    command, values = "/bin/echo ${{ item }}", {"${{ item }}": "x" * 200_000}
    with pytest.raises(shell.ShellFailed, match=r"exit code 126.*too large for an argument"):
        execute(command, values)
    assert execute("printf '%s' ${{ item }} | wc -c", values).strip() == "200000"


def test_a_job_of_an_older_version_has_its_values_as_words(tmp_path: Path) -> None:
    command = f"printf '<%s>' ${{{{ item }}}} 'a'${{{{ item }}}} > {tmp_path}/x; cat {tmp_path}/x"
    assert execute(command, {"${{ item }}": "$(a) *\n"}, result="text") == "<$(a) *\n><a$(a) *\n>"


def test_a_shell_that_is_not_there_is_named() -> None:
    with pytest.raises(shell.ShellFailed, match="exit code 127: there is no shell fish4711"):
        execute("echo", shell="fish4711")


@pytest.mark.skipif(shutil.which("bash") is None, reason="for bash")
@pytest.mark.parametrize("command", ["false | true", "echo $undefined", "false; true"])
def test_bash_is_strict(command: str) -> None:
    with pytest.raises(shell.ShellFailed, match="exit code 1"):
        execute(command)


def test_python_is_a_shell_too() -> None:
    assert execute("print('ab' * 2)", shell="python") == "abab"


def test_a_failure_says_the_exit_code_and_the_last_line() -> None:
    with pytest.raises(shell.ShellFailed) as caught:
        execute("echo it went wrong >&2; exit 3")
    assert caught.value.exit_code_of_command == 3
    assert str(caught.value).endswith("ended with exit code 3: it went wrong")


def test_long_output_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "MAX_RESULT_BYTES", 1_000)
    loop = "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done"
    assert execute(loop) == "line 499"
    with pytest.raises(UsageError, match="too long"):
        execute(loop, result="lines")


def test_what_is_left_in_the_background_ends_with_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert execute(f"sleep 600 & echo $! > {pid_file}; echo done") == "done"
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_an_exception_ends_the_command_and_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(*_: Any) -> int:
        monkeypatch.undo()
        wait_until(lambda: pid_file.exists() and bool(pid_file.read_text()))
        raise TimeoutError

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(TimeoutError):
        execute(f"(sleep 600 & echo $! > {pid_file}; wait)")
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


HALF = r"printf 'one\ntwo \303\244 half\303'"
"""Prints a line that has not ended, and the first half of a character."""


def test_a_line_that_has_not_ended_is_passed_on_when_the_command_rests(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []

    def wait(*_: Any) -> int:
        written.append(capsys.readouterr().out)
        if "half" in "".join(written):
            monkeypatch.undo()
            raise TimeoutError
        time.sleep(0.01)
        raise subprocess.TimeoutExpired("sh", 0.01)

    monkeypatch.setattr(subprocess.Popen, "wait", wait)
    with pytest.raises(TimeoutError):
        execute(f"{HALF}; sleep 600")
    assert "".join(written) == "one\ntwo ä half"
    assert capsys.readouterr().out == r"\xc3", "what follows is not told twice"


def test_the_last_line_of_a_command_that_is_killed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"

    def interrupt(*_: Any) -> int:
        monkeypatch.undo()
        wait_until(mark.exists)
        raise TimeoutError

    monkeypatch.setattr(subprocess.Popen, "wait", interrupt)
    with pytest.raises(TimeoutError):
        execute(f"{HALF}; touch {mark}; sleep 600")
    assert capsys.readouterr().out == "one\ntwo ä half\\xc3"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Progress]]:
    """What jobs in this process report; each report makes the file `told` of the folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shell, "LOOK_S", 0.01)
    told: list[Progress] = []

    def tell(said: Progress) -> None:
        told.append(said)
        (tmp_path / "told").touch()

    set_reporter(tell)
    yield told
    set_reporter(None)


def test_a_command_reports_its_progress_by_a_file_while_it_runs_and_at_its_end(
    told: list[Progress], tmp_path: Path
) -> None:
    execute(f"""
        [ ! -e "$FLOWQ_PROGRESS" ]
        echo '3/10 half é' > "$FLOWQ_PROGRESS"
        until [ -e {tmp_path}/told ]; do sleep 0.01; done
        printf '%s\\n' 'no number' '70.5%' '' >> "$FLOWQ_PROGRESS"
    """)
    assert told == [Progress(3, 10, "half é"), Progress(70.5, 100)]
    assert [path.name for path in tmp_path.iterdir()] == ["told"], "nothing is left"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("half", "write DONE/TOTAL, DONE or PERCENT%, and perhaps a message: not 'half'"),
        ("3/0", "total is 0"),
        ("9" * 30, "a huge number"),
    ],
)
def test_progress_that_says_nothing_is_explained_once_and_fails_nothing(
    line: str, said: str, told: list[Progress], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(f'echo {line} > "$FLOWQ_PROGRESS"; echo done') == "done"
    assert told == []
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("make", ["mkfifo", "mkdir", "ln -s /dev/zero"])
def test_what_is_no_file_of_the_command_is_not_read(make: str, told: list[Progress]) -> None:
    assert execute(f'{make} "$FLOWQ_PROGRESS"; echo done') == "done"
    assert told == []


def test_a_command_does_not_outlive_a_killed_worker(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        "from flowq.runtime import shell; from flowq.runtime.masking import Mask;"
        f"shell.run({{'command': 'echo $$ > {pid_file}; sleep 600'}}, None, Mask())"
    )
    temporary, programs, go = (tmp_path / name for name in ("temporary", "programs", "go"))
    temporary.mkdir()
    programs.mkdir()
    slow = programs / "rm"  # as on a file system that does not answer yet
    slow.write_text(
        f'#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.01; done\nexec {shutil.which("rm")} "$@"\n'
    )
    slow.chmod(0o700)
    path = os.pathsep.join((str(programs), os.environ["PATH"]))
    worker = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(temporary), "PATH": path},
    )
    try:
        wait_until(lambda: pid_file.exists() and bool(pid_file.read_text()))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        if shutil.which("setsid"):
            wait_until(lambda: not is_alive(int(pid_file.read_text())))
            assert list(temporary.iterdir()), "the command was killed before"
    finally:
        worker.kill()
        worker.wait()
        go.touch()
    wait_until(lambda: not is_alive(int(pid_file.read_text())))
    wait_until(lambda: not list(temporary.iterdir()))  # the file of its progress is gone, too


# In a run ----------------------------------------------------------------------------------------


def test_a_command_sees_items_results_inputs_and_its_environment(
    run: Runs, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PLACE", "far away")
    command = (
        'echo ${{ item }} ${{ jobs.first.result }} ${{ inputs.size }} "$WHERE" "$(basename $PWD)"'
    )
    run.submit(
        job("first", "give", with_={"value": "a b"}),
        job(
            "each",
            for_each=each(["x y", "z"]),
            run=Shell(command),
            env={"WHERE": "${{ env.TEST_PLACE }}-${{ index }}"},
            cwd=str(tmp_path),
        ),
        inputs={"size": 3},
        env={"WHERE": "nowhere", "OTHER": "1"},
    )
    work()
    assert run.state == "succeeded"
    assert run.result("each--0") == f"x y a b 3 far away-0 {tmp_path.name}"
    assert "TEST_PLACE" not in os.environ or os.environ["TEST_PLACE"] == "far away"
    assert "WHERE" not in os.environ


def test_a_function_gets_environment_and_folder_too_and_leaves_none_of_it(
    run: Runs, work: Work, tmp_path: Path
) -> None:
    folder = Path.cwd()
    run.submit(
        job("look", "read_env", with_={"name": "COLOUR"}, env={"COLOUR": "red"}, cwd=str(tmp_path))
    )
    work()
    assert run.result("look") == ("red", tmp_path.name)
    assert "COLOUR" not in os.environ
    assert Path.cwd() == folder


def test_a_secret_is_read_where_the_job_runs_and_shown_nowhere(
    run: Runs,
    work: Work,
    connection: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "s3cr3t-value")
    run.submit(
        job(
            "shell",
            run=Shell('echo "token $TOKEN"; exit 1'),
            env={"TOKEN": "${{ secrets.TEST_TOKEN }}"},
        ),
        job("call", "fail", with_={"message": "bad token ${{ secrets.TEST_TOKEN }}"}),
    )
    kept = b"".join(connection.dump(key) or b"" for key in connection.keys("*"))
    assert b"s3cr3t" not in kept
    work()
    assert "token ***" in capfd.readouterr().out
    assert '`echo "token $TOKEN"; exit 1` ended with exit code 1: token ***' in run.error("shell")
    assert "bad token ***" in run.error("call")
    assert "s3cr3t" not in run.error("call") + run.error("shell")


def test_a_variable_that_is_not_set_is_named(run: Runs, work: Work) -> None:
    run.submit(job("call", "give", with_={"value": "${{ env.NOT_SET_4711 }}"}))
    work()
    assert "NOT_SET_4711 is not set where the job runs" in run.error("call")


def test_a_timeout_fails_the_job(run: Runs, work: Work, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    run.submit(job("long", run=Shell(f"echo $$ > {pid_file}; sleep 600"), timeout_s=1))
    work()
    assert run.state == "failed"
    assert "JobTimeoutException" in run.error("long")
    wait_until(lambda: not is_alive(int(pid_file.read_text())))


def test_an_exit_code_fails_the_run(run: Runs, work: Work) -> None:
    run.submit(job("make", run=Shell("exit 7")), job("after", "my_id", needs=("make",)))
    work()
    assert run.states == {"make": "failed", "after": "skipped"}
    assert "ShellFailed: `exit 7` ended with exit code 7" in run.error("make")
    assert RUN in run.status.run_id


def test_what_a_function_prints_is_masked_as_well(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEST_TOKEN", "s3cr3t-value")
    run.submit(job("call", "say", with_={"text": "${{ secrets.TEST_TOKEN }}"}))
    work()
    assert capfd.readouterr().out == "they said ***\n"
    assert run.result("call") == "s3cr3t-value"


def test_a_command_is_shown_as_it_was_run_with_its_secrets_hidden(
    run: Runs, work: Work, monkeypatch: pytest.MonkeyPatch, connection: Redis
) -> None:
    monkeypatch.setenv("THE_TOKEN", "hunter22")
    command = "echo ${{ inputs.text }} ${{ secrets.THE_TOKEN }} >&2; exit 3"
    run.submit(job("make", run=Shell(command)), inputs={"text": "a b; ls"})
    work()
    assert "ShellFailed: `echo 'a b; ls' *** >&2; exit 3` ended with exit code 3" in run.error(
        "make"
    )
    description = connection.hget(f"rq:job:{RUN}-make", "description")
    assert description == b"echo 'a b; ls' *** >&2; exit 3"


def test_a_long_command_is_shown_by_its_beginning() -> None:
    with pytest.raises(shell.ShellFailed) as caught:
        execute("false ${{ item }}\nexit 3", {"${{ item }}": "x" * 300})
    assert str(caught.value) == f"`false {'x' * 194}…` ended with exit code 1"
