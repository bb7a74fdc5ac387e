"""What a press of the Tab key offers, as the shells ask for it; and that it does no harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import redis

from flowq import server
from tests.cli.commands import Flowq, Said

Call = Callable[..., Said]
Offer = Callable[..., list[str]]


@pytest.fixture
def offer(call: Call) -> Offer:
    """`offer(*words)`: the completions of the last of these words, as bash gets them."""

    def ask(*words: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("_FLOWQ_COMPLETE", "bash_complete")
            patch.setenv("COMP_WORDS", " ".join(["flowq", *words]))
            patch.setenv("COMP_CWORD", str(len(words)))
            said = call()
        assert said.err == ""
        return [line.partition(",")[2] for line in said.out.splitlines() if line]

    return ask


def test_commands_and_options_are_offered(offer: Offer) -> None:
    assert offer("ca") == ["cancel"]
    assert offer("runs", "--st") == ["--state"]
    assert offer("runs", "--state", "can") == ["canceled"]
    assert offer("completion", "") == ["bash", "zsh", "fish"]


def test_jobs_of_a_file_are_offered_without_running_its_code(offer: Offer, folder: Path) -> None:
    assert offer("run", "sandwich.yaml", "--only", "s") == ["serve", "spread"]
    assert offer("graph", "sandwich.yaml", "--skip", "cut,sp") == ["cut,spread"]
    (folder / "own.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    for target in ("own.py", "no.yaml", "."):
        assert offer("plan", target, "--from", "") == []
    assert not (folder / "ran").exists()


def test_runs_and_their_jobs_are_offered(call: Call, offer: Offer, redis_url: str) -> None:
    url = ("--redis-url", redis_url)
    assert offer("show", *url, "") == []
    run_id = call("run", "sandwich.yaml", "--detach", *url).out.strip()
    other = call("run", "gate.yaml", "--detach", *url).out.strip()
    assert offer("show", *url, "") == ["last", other, run_id]
    assert offer("cancel", *url, run_id[:11]) == [run_id]
    assert "cut" in offer("show", *url, run_id, "")
    assert offer("explain", *url, run_id[:11], "cu") == ["cut"]
    assert offer("retry", *url, "nosuch", "") == []
    assert all("(" not in name for name in offer("status", *url, run_id, ""))


KEYS = """
name: keys
jobs:
  page:
    call: kitchen:say
    for_each: [plain, "`touch PWNED`", "x;touch${IFS}PWNED", "a b", "$(id)", "a-b_1.c"]
    key: ${{ item }}
    with: {text: "${{ item }}"}
"""


def test_a_name_that_a_shell_would_execute_is_not_offered(
    call: Call, offer: Offer, redis_url: str, folder: Path, connection: redis.Redis
) -> None:
    (folder / "keys.yaml").write_text(KEYS)
    url = ("--redis-url", redis_url)
    assert call("run", "keys.yaml", "-c", "1", "-q", *url).code == 0
    assert offer("show", *url, "last", "pa") == ["page"]
    assert set(offer("show", *url, "last", "page[")) == {"page[plain]", "page[a-b_1.c]"}
    connection.sadd("rq:queues", "rq:queue:a;id", "rq:queue:mails")
    assert offer("worker", *url, "") == ["default", "mails"]


def test_queues_are_offered(call: Call, offer: Offer, redis_url: str) -> None:
    url = ("--redis-url", redis_url)
    assert offer("worker", *url, "") == []
    call("run", "sandwich.yaml", "--detach", *url)
    assert "default" in offer("worker", *url, "")


@pytest.mark.parametrize("url", ["redis://localhost:1", "nonsense", "redis://localhost:port/x"])
def test_a_server_that_does_not_answer_offers_nothing(offer: Offer, url: str) -> None:
    assert offer("show", "--redis-url", url, "") == []


def test_a_press_of_the_tab_key_starts_no_server(offer: Offer, folder: Path) -> None:
    assert offer("show", "") == []
    assert not server.is_used(folder)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_its_script(flowq: Flowq, tmp_path: Path, shell: str) -> None:
    done = flowq("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_FLOWQ_COMPLETE" in done.stdout
    if shutil.which(shell) is None:
        return  # the script is click's; that a shell can read it is tried where there is one
    (tmp_path / "script").write_text(done.stdout)
    words: Sequence[str] = [shell, "-n", str(tmp_path / "script")]
    assert subprocess.run(words, capture_output=True, check=False, text=True).stderr == ""


def test_bash_completes_with_the_script(flowq: Flowq, tmp_path: Path) -> None:
    (tmp_path / "complete.sh").write_text(flowq("completion", "bash").stdout)
    code = "source ./complete.sh; COMP_WORDS=(flowq ca) COMP_CWORD=1; _flowq_completion flowq"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", f'{code}; echo "${{COMPREPLY[@]}}"'],
        cwd=tmp_path,
        env={**flowq.env, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "cancel\n", done.stderr
