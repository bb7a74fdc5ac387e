"""Commands as they would be given to the shells of Windows, which nobody here has."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowq.errors import ShellFailed, UsageError
from flowq.runtime import shell
from flowq.runtime.masking import Mask

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`installed(*names)`: programs that are found, and do nothing."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("COMSPEC", raising=False)

    def install(*names: str) -> None:
        for name in names:
            program = tmp_path / name
            program.write_text("")
            program.chmod(0o755)

    install("cmd", "pwsh", "powershell")
    return install


def test_cmd_gets_one_line_within_quotes_that_it_takes_away() -> None:
    line = shell.command_line("cmd", 'copy "a b.txt" c && echo "done"\n')
    assert line == 'cmd /d /e:on /v:on /s /c "copy "a b.txt" c && echo "done""'


def test_the_cmd_that_windows_names_is_the_one(
    tmp_path: Path, installed: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed("my cmd.exe")
    monkeypatch.setenv("COMSPEC", str(tmp_path / "my cmd.exe"))
    assert shell.command_line("cmd", "ver") == (
        f'"{tmp_path / "my cmd.exe"}" /d /e:on /v:on /s /c "ver"'
    )


@pytest.mark.parametrize("name", ["cmd.exe", "CMD.EXE", r"C:\Windows\System32\cmd.exe"])
def test_cmd_is_known_by_any_of_its_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell.shutil, "which", lambda program: program)
    assert shell.command_line(name, "ver") == f'{name} /d /e:on /v:on /s /c "ver"'


def test_cmd_is_not_given_lines_that_it_would_forget() -> None:
    with pytest.raises(UsageError, match=r"cmd takes one line: join them with &&.*shell: pwsh"):
        shell.command_line("cmd", "echo one\necho two\n")
    assert shell.command_line("cmd", "\n\n") == 'cmd /d /e:on /v:on /s /c ""'


@pytest.mark.parametrize("name", ["cmd", r"C:\Windows\System32\CMD.EXE", "pwsh", "powershell"])
def test_values_are_refused_where_quotes_do_not_hold(name: str) -> None:
    with pytest.raises(UsageError, match="pass them under `env:`, or write the command as a list"):
        shell.run({"command": "echo ${{ item }}", "shell": name}, {"${{ item }}": 1}.get, Mask())


@pytest.mark.parametrize("name", ["pwsh", "powershell"])
def test_powershell_stops_at_errors_and_passes_the_exit_code_on(name: str) -> None:
    program, *options, command = shell.command_line(name, "Get-Item a\nmake it")
    assert [program, *options] == [name, "-NoProfile", "-NonInteractive", "-Command"]
    assert command.splitlines() == [
        "$ErrorActionPreference = 'stop'",
        "Get-Item a",
        "make it",
        r"if (Test-Path -LiteralPath variable:\LASTEXITCODE) { exit $LASTEXITCODE }",
    ]


def test_a_shell_that_is_not_there_is_named() -> None:
    with pytest.raises(ShellFailed, match="there is no shell zsh where the job runs"):
        shell.run({"command": "ls", "shell": "zsh"}, {}.get, Mask())


def test_a_batch_file_gets_no_list_of_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell.os, "name", "nt")
    with pytest.raises(shell._NotStarted, match="is a file for cmd"):
        shell._start(["build.BAT", "a & b"], {})


# Output ------------------------------------------------------------------------------------------


def printing(data: bytes) -> str:
    code = f"import sys; sys.stdout.buffer.write({data!r})"
    found = shell.run({"command": code, "shell": "python", "result": "text"}, {}.get, Mask())
    assert isinstance(found, str)
    return found


@pytest.fixture
def oem() -> Iterator[None]:
    """The codec of the Windows console, as if it were here: the one of a German machine."""

    def find(name: str) -> codecs.CodecInfo | None:
        return codecs.lookup("cp850") if name == "oem" else None

    codecs.register(find)
    yield
    codecs.unregister(find)


@pytest.fixture
def _sh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # what keeps a command on its leash is in there


@pytest.mark.usefixtures("oem", "_sh")
def test_output_of_console_programs_is_read_as_such_and_utf_8_as_utf_8() -> None:
    assert printing("größer\n".encode("cp850") + "größer ✓\n".encode()) == "größer\ngrößer ✓"


@pytest.mark.usefixtures("_sh")
def test_output_in_no_known_encoding_keeps_its_bytes() -> None:
    assert printing(b"gr\xfc\xdfe\n") == "gr\udcfc\udcdfe"


@pytest.mark.usefixtures("_sh")
def test_line_ends_of_windows_are_one_line_end(capsys: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("")  # the captured one
    assert printing(b"one\r\ntwo\r\n") == "one\r\ntwo"
    assert capsys.readouterr().out == "one\ntwo\n"
