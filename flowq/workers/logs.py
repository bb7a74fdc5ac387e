"""The logs of a worker and of its children, as lines or as JSON.

`--log-format json` makes one JSON object of each record of the worker, and in its children also of
what the code of users logs. `JsonFormatter` can stand in a `dictConfig` of your own too.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from rq.logutils import setup_loghandlers

from flowq.runtime.variables import ATTEMPT, ITEM, JOB, NAMES, RUN

JSON = "json"
"""The `log_format` that is no pattern of Python's `logging`."""

JOB_ID = "RQ_JOB_ID"
_FIELDS = {"run": RUN, "job": JOB, "item": ITEM, "attempt": ATTEMPT, "job_id": JOB_ID}
LOGGER = "rq.worker"
"""The logger of the worker itself, in its children too."""


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object on one line.

    Shape: `at` (ISO 8601, UTC), `level`, `logger`, `message`, and `run`, `job`, `item`, `attempt`
    and `job_id` of the job that the process executes, None where there is none; `exception` has the
    traceback, if there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        fields = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields_of_job(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def _fields_of_job(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of the job that a record is about, or that this process executes.

    Only a record of the worker itself says which job it is about; `extra` of others is their own.
    """
    if record.name == LOGGER and hasattr(record, "job_id"):
        return {name: getattr(record, name, None) for name in _FIELDS}
    attempt = os.environ.get(ATTEMPT, "")
    named = {name: os.environ.get(variable) for name, variable in _FIELDS.items()}
    return {**named, "attempt": int(attempt) if attempt.isdecimal() else None}


def set_up(level: str | None, date_format: str, log_format: str) -> None:
    """Log what the worker says of itself: as RQ does, or as JSON to standard output.

    Does nothing but set the level if the program has set up its logging.
    """
    if log_format == JSON:
        for name in (*NAMES, JOB_ID):  # a job has started this worker
            os.environ.pop(name, None)
        if not logging.getLogger(LOGGER).hasHandlers():
            _write_json(LOGGER, logging.StreamHandler(sys.stdout))
            logging.getLogger(LOGGER).propagate = False
    setup_loghandlers(level, date_format, log_format, name=LOGGER)


def set_up_child(level: str) -> None:
    """Write all records of this child as JSON to standard error, which is the jobs' output."""
    own = logging.getLogger(LOGGER)
    own.handlers.clear()
    own.propagate = True
    _write_json("", _ToStandardError())
    logging.getLogger().setLevel(level)


class _ToStandardError(logging.StreamHandler[TextIO]):
    """Writes to `sys.stderr` as it is: jobs replace it, and secrets are hidden in it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.setStream(sys.stderr)
        super().emit(record)


def _write_json(name: str, handler: logging.Handler) -> None:
    handler.setFormatter(JsonFormatter())
    logging.getLogger(name).addHandler(handler)
