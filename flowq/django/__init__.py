"""flowq in a Django project: connections from its settings, commands, workflows of its apps.

    INSTALLED_APPS = [..., "flowq.django"]
    RQ_QUEUES = {"default": {"URL": "redis://localhost:6379/0"}}   # as for django-rq

    connections.py   queues and connections of RQ_QUEUES
    apps.py          imports `workflows.py` of each app
    setup.py         sets Django up in a worker's children; children.py  the class of their jobs
    management/      `manage.py flowqworker`, and `manage.py flowq` for all other commands

docs/django.md explains it. A name of this package loads its module when it is first used, because
Django imports the package before it is set up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` resolves, for the type checker
    from flowq.django.connections import get_connection, get_queue, get_url

__all__ = ["get_connection", "get_queue", "get_url"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.connections"), name)
    globals()[name] = value
    return value
