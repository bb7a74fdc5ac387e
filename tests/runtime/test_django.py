"""flowq in a real project of Django, with its commands in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("django")

Manage = Callable[..., subprocess.CompletedProcess[str]]

SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = ["flowq.django", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
USE_TZ = True
RQ_QUEUES = {
    "default": {"URL": %(url)r, "DEFAULT_TIMEOUT": 77},
    "parts": {"HOST": "h", "PORT": 1, "DB": 2, "USERNAME": "u", "PASSWORD": "p@", "SSL": True},
    "socket": {"UNIX_SOCKET_PATH": "/s", "DB": 3},
    "wrong": {"HOTS": "h"},
}
"""
WORKFLOWS = """
import flowq

flow = flowq.Workflow("shop", inputs={"name": "Ann"})
flow.call("save", "shop.tasks:save", with_={"name": flow.inputs.name})
"""
TASKS = """
from django.apps import apps

def save(name):
    from shop.models import Order
    Order.objects.create(name=name)
    return [apps.ready, Order.objects.count()]
"""
MODELS = """
from django.db import models

class Order(models.Model):
    name = models.CharField(max_length=20)

    class Meta:
        app_label = "shop"
"""
SUBMIT = """
import sys, flowq
from django.core.management import call_command
call_command("migrate", run_syncdb=True, verbosity=0)
from flowq.django import get_connection, get_queue, get_url
assert "shop.workflows" in sys.modules
from shop.workflows import flow
run = flowq.submit(flow, {"name": "Bob"}, connection=get_connection())
assert get_queue().connection is get_connection()
assert get_queue().enqueue("shop.tasks.save", "Eve").timeout == 77
print(get_url("parts"), get_url("socket"))
import os
from django.db import connection
from flowq.django.management.commands.flowq import Command
print(Command().make_command([])[1]["PYTHONPATH"].split(os.pathsep))
was_open = connection.connection is not None
import flowq.django.setup
print("setup leaves", was_open, connection.connection)
for name in ("wrong", "defualt"):
    try:
        get_queue(name)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.fixture
def manage(tmp_path: Path, redis_url: str) -> Manage:
    """`manage("flowqworker", …)`: a command of a new project, with a table in its database."""
    app = tmp_path / "shop"
    app.mkdir()
    (app / "__init__.py").touch()
    for name, text in {"workflows": WORKFLOWS, "tasks": TASKS, "models": MODELS}.items():
        (app / f"{name}.py").write_text(text)
    (tmp_path / "project_settings.py").write_text(SETTINGS % {"url": redis_url})

    def run(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        program = "import sys, django.core.management as m; m.execute_from_command_line(sys.argv)"
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=tmp_path,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "project_settings"},
            capture_output=True,
            text=True,
            input=text,
            check=False,
            timeout=90,
        )

    return run


def test_jobs_of_a_project_are_submitted_and_executed_with_django_set_up(
    manage: Manage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}/of/others")
    submitted = manage("shell", "-v", "0", text=SUBMIT)
    assert submitted.returncode == 0, submitted.stderr
    *_, urls, paths, left, wrong, unknown = submitted.stdout.splitlines()
    assert left == "setup leaves True None"
    assert str(tmp_path) in paths  # the project
    assert "/of/others" in paths
    assert sysconfig.get_path("purelib") not in paths
    assert [urls, wrong, unknown] == [
        "rediss://u:p%40@h:1/2 unix:///s?db=3",
        "ImproperlyConfigured RQ_QUEUES['wrong'] has a key HOTS that flowq cannot read; "
        "did you mean 'HOST'?",
        "ImproperlyConfigured RQ_QUEUES has no queue defualt; did you mean 'default'?",
    ]
    worked = manage("flowqworker", "--burst", "--mode", "warm", "--settings", "project_settings")
    assert worked.returncode == 0, worked.stdout + worked.stderr
    shown = manage("flowq", "show", "last", "save")
    assert "[True, " in shown.stdout, shown.stdout + shown.stderr
    refused = manage("flowq", "show", "nope")
    assert refused.returncode == 5
    assert "nope" in refused.stderr
