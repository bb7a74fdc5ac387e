"""Where the systems run: one server, one folder for marks and logs, and a client for each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from subprocess import Popen

from harness.catalogue import System
from harness.client import Client
from harness.marks import Marks
from harness.processes import running
from harness.server import PrivateServer, private_server

TASKS = Path(__file__).parents[1] / "systems"
NOT_INHERITED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "FLOWQ_REDIS_URL", "RQ_REDIS_URL")


class Place:
    """What a visit to a system needs."""

    def __init__(
        self, server: PrivateServer, folder: Path, programs_by_environment: dict[str, Path]
    ) -> None:
        self.server = server
        self.marks = Marks(folder)
        self._folder = folder
        self._programs = programs_by_environment
        self._clients: dict[tuple[str, bool], Client] = {}

    def client_of(self, system: System) -> Client:
        """Return the process that declares for it; rows of the same system share it."""
        key = (system.tasks, system.unix)
        if key not in self._clients:
            self._clients[key] = self._start_client(system)
        return self._clients[key]

    def drop_client(self, system: System) -> None:
        """End its client, because it is of no use any more. Idempotent."""
        client = self._clients.pop((system.tasks, system.unix), None)
        if client:
            client.close()

    def worker_of(self, system: System) -> AbstractContextManager[Popen[bytes]]:
        """Run its worker for as long as the block."""
        command = self._fill_in(system)
        return running(command, self._variables(system), self._folder, self.log_of(system))

    def log_of(self, system: System) -> Path:
        """Where its worker's messages are."""
        return self._folder / f"{system.name}.log"

    def close(self) -> None:
        """End the clients. Idempotent."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def _start_client(self, system: System) -> Client:
        if system.environment == "js":
            command = ["node", str(TASKS / system.tasks)]
        else:
            python = self._programs[system.environment] / "python"
            command = [str(python), str(TASKS / "client.py"), system.tasks.removesuffix(".py")]
        log = self._folder / f"{system.tasks}.log"
        return Client(command, self._variables(system), self._folder, log)

    def _fill_in(self, system: System) -> list[str]:
        places = {
            "{bin}": str(self._programs[system.environment]),
            "{here}": str(TASKS),
            "{url}": self._url(system),
        }
        words = []
        for word in system.worker:
            for place, value in places.items():
                word = word.replace(place, value)  # noqa: PLW2901 - one after the other
            words.append(word)
        return words

    def _variables(self, system: System) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        programs = self._programs[system.environment]
        return {
            **inherited,
            "BENCHMARK_MARKS": str(self.marks.folder),
            "BENCHMARK_URL": self._url(system),
            "PATH": f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}",
            "PYTHONPATH": str(TASKS),
            "NODE_PATH": str(programs),
        }

    def _url(self, system: System) -> str:
        return self.server.unix_url if system.unix else self.server.url


@contextmanager
def open_place(programs_by_environment: dict[str, Path]) -> Iterator[Place]:
    """Start the private server and make the folder, for as long as the block."""
    folder = Path(tempfile.mkdtemp(prefix="flowq-benchmarks-"))
    try:
        with private_server() as server:
            place = Place(server, folder, programs_by_environment)
            try:
                yield place
            finally:
                place.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
