"""Jobs that try to show their secret, in every way they know. Importable by the children."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

FILLING = "." * 700_000


def spell(token: str) -> list[str]:
    """Return what different programs make of it."""
    data = token.encode()
    return [
        token,
        json.dumps(token),
        json.dumps({"a": token}, ensure_ascii=False),
        repr(token),
        repr(data),
        repr([data, {"k": token}]),
        shlex.quote(token),
        quote(token),
        quote_plus(token),
        quote(token, safe="!#$%&'()*+,/:;=?@[]~"),
        re.sub("%..", lambda found: found[0].lower(), quote(token, safe="")),
        base64.b64encode(data).decode(),
        base64.b64encode(b"user:" + data).decode(),
        base64.b64encode(b"ab" + data + b"\n").decode(),
        base64.urlsafe_b64encode(b"x" + data).decode(),
        base64.encodebytes(data * 9).decode(),
        data.hex(),
        *token.splitlines()[1:],
    ]


def say(token: str) -> None:
    """Print it in all spellings, on all ways."""
    for text in spell(token):
        print("print", text)
        print("stderr", text, file=sys.stderr)
        sys.stdout.buffer.write(f"buffer {text}\n".encode())
        sys.stdout.flush()
        os.write(1, f"write {text}\n".encode())
        logging.getLogger("users").warning("log %s", text)
    subprocess.run(["cat"], input=token.encode() + b"\n", check=True)
    subprocess.run(["sh", "-xc", "echo $0; env | grep ^GIVEN", token], check=True)
    subprocess.run(["bash", "-c", 'declare -p GIVEN; printf "%q\\n" "$GIVEN"'], check=True)
    for part in token:
        os.write(2, part.encode())
    print(token[:7], end="", flush=True)
    subprocess.run(["printf", "%s", token[7:]], check=True)
    print("\nthe end")


def say_slowly(token: str, go: str) -> None:
    """Print one half, wait until that is in the log, and print the other one."""
    print("begins", token[:9], sep="\n", end="", flush=True)
    while not Path(go).exists():
        time.sleep(0.01)
    print(token[9:], "ends", sep="\n", flush=True)


def say_and_die(token: str) -> None:
    """Print more than is kept, with it at the seams, and be killed in the middle of it."""
    os.write(1, FILLING.encode())
    for _ in range(40_000 // len(token)):
        os.write(1, token.encode())
    os.write(1, FILLING.encode() + b"\nlast " + token.encode() + b" and " + token[:11].encode())
    os.kill(os.getpid(), signal.SIGKILL)


def leave(token: str, go: str) -> None:
    """Leave a process behind that prints it once that file is there."""
    text = 'while ! test -e "$1"; do sleep 0.02; done; echo "left $0"'
    subprocess.Popen(["sh", "-c", text, token, go])


def let_go(go: str) -> None:
    """Let that process print, beside this job."""
    Path(go).touch()
    time.sleep(0.3)


class Odd(Exception):
    """One that keeps what it says outside of its arguments."""

    def __init__(self, token: str) -> None:
        super().__init__()
        self.parts = iter([f"odd {token}"] * 9)

    def __str__(self) -> str:
        return next(self.parts)


def fail(token: str) -> None:
    """Raise it in arguments, notes, causes and groups."""
    errors: list[Exception] = [
        subprocess.CalledProcessError(1, ["curl", "-u", token], token, token.encode()),
        OSError(2, "no", f"/tmp/{token}"),
        KeyError(token),
        ValueError({"k": [token, token.encode()]}, Path(token)),
        Odd(token),
    ]
    error = ValueError("the cause")
    error.add_note(f"note {token}")
    try:
        try:
            raise error
        except ValueError:
            raise RuntimeError(f"context {token}")  # noqa: B904 - the context is what is tested
    except RuntimeError as cause:
        raise ExceptionGroup(f"group {token}", errors) from cause


def give(token: str) -> Any:
    """Return it, inside of other things."""
    return {"token": token, token: [token.encode(), {"deep": token}], "n": 1}


def pass_on(value: Any) -> Any:
    """Print and return what another job has returned."""
    print("passed", value)
    return value


def report(token: str) -> None:
    """Raise with the secret in a local variable, a log message and a command."""
    held = {"token": token}
    logging.getLogger("users").error("about %s", held)
    subprocess.run(["true", token], check=True)
    raise ValueError(token)
