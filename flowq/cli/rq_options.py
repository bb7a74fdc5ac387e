"""The options of `rq worker`, for `flowq worker`: each is the same here, or refused by name.

`EQUIVALENTS` names all of them; a test compares it with RQ's own command, so that an option of a
new RQ is noticed. `read_settings` reads a module of settings as `rq worker --config` does.
"""

from __future__ import annotations

import logging.config
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import click

from flowq.errors import UsageError
from flowq.server.url import write_login, write_url


@dataclass(frozen=True, slots=True)
class Equivalent:
    """What `flowq worker` has for an option of RQ: `option`, or else what `instead` says."""

    option: str = ""
    instead: str = ""


SAME = (
    *("--burst", "--log-format", "--date-format", "--name", "--results-ttl", "--worker-ttl"),
    *("--maintenance-interval", "--job-monitoring-interval", "--disable-job-desc-logging"),
    *("--verbose", "--quiet", "--exception-handler", "--pid"),
    *("--disable-default-exception-handler", "--max-jobs", "--max-idle-time"),
    *("--with-scheduler", "--dequeue-strategy", "--serializer", "--path", "--queue-class"),
    *("--job-class", "--config", "--url"),
)
"""Options of the same name and meaning."""

EQUIVALENTS: Mapping[str, Equivalent] = {
    **{name: Equivalent(name) for name in SAME},
    "--logging_level": Equivalent("--logging-level"),
    "--worker-class": Equivalent(
        instead="flowq worker is flowq.Worker, with --mode multiprocessing it is "
        "flowq.MultiprocessingWorker; start a subclass with rq worker -w package.module.Name"
    ),
    "--connection-class": Equivalent(
        instead="flowq makes its own connections, with time limits; name the server with "
        "--redis-url, also redis+sentinel://… and redis+cluster://…"
    ),
}
"""The options of `rq worker` by their long names."""

SHORT_NAMES = {"--worker-class": "-w"}


def _refuse(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None and not context.resilient_parsing:
        name = parameter.opts[0]
        raise UsageError(f"flowq worker has no {name}: {EQUIVALENTS[name].instead}")


def refuse_others(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that only RQ has, hidden, to refuse them with what to write instead."""
    for name, equivalent in EQUIVALENTS.items():
        if not equivalent.option:
            names = [name, *filter(None, [SHORT_NAMES.get(name)])]
            refused = click.option(*names, hidden=True, expose_value=False, callback=_refuse)
            command = refused(command)
    return command


# Settings ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Settings:
    """What a module of settings says. `url` is None if it names no server."""

    url: str | None = None
    queues: tuple[str, ...] = ()
    name: str | None = None


def read_settings(module: str, paths: tuple[str, ...] = ()) -> Settings:
    """Import a module of settings, set up its logging, and return the rest of what it says.

    As in RQ, a module without a server means the one on localhost. Errors: UsageError.
    """
    sys.path[:0] = [path for path in paths if path not in sys.path]
    try:
        values = vars(import_module(module))
    except Exception as error:  # noqa: BLE001 - the code of users
        raise UsageError(f"--config {module}: {type(error).__name__}: {error}") from None
    if values.get("DICT_CONFIG"):
        try:
            logging.config.dictConfig(values["DICT_CONFIG"])
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            raise UsageError(f"--config {module}: its DICT_CONFIG is wrong: {error}") from None
    queues = values.get("QUEUES") or ()
    return Settings(_write_url(module, values), tuple(queues), values.get("NAME"))


def _write_url(module: str, values: Mapping[str, Any]) -> str:
    if values.get("REDIS_URL"):
        return str(values["REDIS_URL"])
    if values.get("SENTINEL"):
        return _write_sentinel(module, values["SENTINEL"])
    has_tls = str(values.get("REDIS_SSL", "")).lower() in ("y", "yes", "t", "true")
    url = write_url(
        *(values.get(name) for name in ("REDIS_HOST", "REDIS_PORT", "REDIS_DB")),
        login=write_login(values.get("REDIS_PASSWORD")),
        has_tls=has_tls,
    )
    if not has_tls:
        return url
    if values.get("REDIS_SSL_CA_DATA"):
        _refuse_setting(module, "REDIS_SSL_CA_DATA")
    found = {name: values.get(name.upper().replace("SSL", "REDIS_SSL")) for name in _TLS}
    query = urlencode({name: value for name, value in found.items() if value})
    return f"{url}?{query}" if query else url


_TLS = ("ssl_ca_certs", "ssl_cert_reqs", "ssl_keyfile", "ssl_certfile")


def _write_sentinel(module: str, sentinel: Mapping[str, Any]) -> str:
    for name in ("SSL", "CONNECTION_KWARGS", "SOCKET_TIMEOUT"):
        if sentinel.get(name):
            _refuse_setting(module, f"SENTINEL[{name!r}]")
    login = write_login(sentinel.get("PASSWORD"), sentinel.get("USERNAME"))
    own = sentinel.get("SENTINEL_KWARGS") or {}
    if own.keys() - {"username", "password"}:
        _refuse_setting(module, "SENTINEL['SENTINEL_KWARGS']")
    query = urlencode({f"sentinel_{name}": value for name, value in own.items() if value})
    instances = sentinel.get("INSTANCES", [("localhost", 26379)])
    hosts = ",".join(f"{host}:{port}" for host, port in instances)
    master, db = sentinel.get("MASTER_NAME", "mymaster"), sentinel.get("DB") or 0
    return f"redis+sentinel://{login}{hosts}/{master}/{db}{'?' if query else ''}{query}"


def _refuse_setting(module: str, name: str) -> NoReturn:
    raise UsageError(
        f"--config {module}: {name} cannot be written in a URL; pass --redis-url instead"
    )


def check_handlers(names: Iterable[str], paths: Sequence[str]) -> None:
    """Check the names of exception handlers, without importing anything. Errors: UsageError."""
    for name in names:
        package, dot, _ = name.partition(".")
        if not dot or PathFinder.find_spec(package, [*paths, *sys.path]) is None:
            reason = f"there is no module {package}" if dot else "it has no dot"
            raise UsageError(f"--exception-handler {name}: {reason}; write package.module.function")


def write_pid(file: str) -> None:
    """Write the id of this process to a file, as `rq worker --pid` does. Errors: UsageError."""
    try:
        Path(file).expanduser().write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        raise UsageError(f"--pid {file}: {error.strerror}") from None
