"""Jobs whose module brings Sentry's SDK, as the modules of users do. Importable by the children."""

from __future__ import annotations

import logging
import os
import subprocess

import sentry_sdk

sentry_sdk.init(dsn=os.environ.get("TEST_DSN", ""), traces_sample_rate=1.0)


def fail() -> None:
    """Raise."""
    raise ValueError("no")


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


def report(token: str) -> None:
    """Fail with a secret in a local variable, a message of the log and a command."""
    held = {"token": [token]}
    logging.getLogger("users").error("about %s", held)
    subprocess.run(["true", token], check=True)
    raise LookupError(f"no {token}")
