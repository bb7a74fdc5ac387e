"""The class of the jobs that `manage.py flowqworker` executes.

It closes database connections that are broken or too old, as Django does around each request.
"""

from __future__ import annotations

from typing import Any

from flowq.runtime.job import Job


class DjangoJob(Job):
    """A job around which Django's stale database connections are closed."""

    def perform(self) -> Any:
        """Execute the job."""
        from django.db import close_old_connections  # noqa: PLC0415 - the supervisor needs none

        close_old_connections()
        try:
            return super().perform()
        finally:
            close_old_connections()
