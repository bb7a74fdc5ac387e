"""The stage: a server, workers and clients, kept alive while the killer goes round."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_jobs import LOG_VARIABLE
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from flowq import server
from flowq.errors import FlowqError
from flowq.runtime import keys
from flowq.status import RUN_ENDED
from flowq.workers import start
from tests import JOBS_FOLDER
from tests.chaos.evidence import read_lines
from tests.chaos.killer import Killer, find_busy
from tests.chaos.shapes import QUEUE

ROOT = Path(__file__).parents[2]
MODES = ("warm", "fork", "multiprocessing")
CLIENTS = 2
SERVER_PAUSE_S = 14.0
"""The guardian gives up after five restarts within a minute."""

FIRST_KILL_S, FIRST_SERVER_S = 2.5, 5.0
KILL_WEIGHTS = {"child": 50, "worker": 25, "client": 25}


@dataclass
class Actor:
    """A process that is started again when it is gone."""

    name: str
    process: subprocess.Popen[bytes]


class Director:
    """Sets the stage in a folder. Units: `interval_s` between two graphs of one client."""

    def __init__(self, folder: Path, seed: int, interval_s: float, kill_every_s: float) -> None:
        self.folder, self.seed = folder, seed
        self.interval_s, self.kill_every_s = interval_s, kill_every_s
        self.dice = random.Random(f"director {seed}")
        self.killer = Killer(str(folder / "kills"), self.dice)
        self.log, self.journal = folder / "jobs", folder / "journal"
        self.notes: list[str] = []
        self.workers: list[Actor] = []
        self.clients: list[Actor | None] = [None] * CLIENTS
        self._born = self._kills = 0
        self._next_kill_at = time.monotonic() + FIRST_KILL_S
        self._next_server_at = time.monotonic() + FIRST_SERVER_S
        os.environ[LOG_VARIABLE] = str(self.log)
        self.server = server.ensure(folder, idle_s=3_600)
        self.connection = _patient(self.server.socket)

    # Actors --------------------------------------------------------------------------------------

    def raise_curtain(self) -> None:
        """Start the workers and the clients."""
        for mode in MODES:
            self.workers.append(self._start_worker(mode))
        for at in range(CLIENTS):
            self._start_client(at)

    def _start_worker(self, mode: str) -> Actor:
        self._born += 1
        name = f"{mode}-{self._born}"
        process = start(
            url=self.server.url,
            queues=[QUEUE],
            concurrency=2,
            mode=mode,  # type: ignore[arg-type]
            paths=[JOBS_FOLDER],
            log_folder=str(self.folder / "workers" / name),
            name=name,
        )
        return Actor(name, process)

    def _start_client(self, at: int) -> None:
        numbers = [line["number"] for line in read_lines(self.journal) if line["what"] == "begun"]
        first = max([n for n in numbers if n % CLIENTS == at], default=at - CLIENTS) + CLIENTS
        words = [self.server.socket, self.journal, self.seed, self.interval_s, first, CLIENTS]
        with (self.folder / "clients").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.submitter", *map(str, words)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": JOBS_FOLDER},
                stdout=output,
                stderr=output,
            )
        self.clients[at] = Actor(f"client-{at}", process)

    def look_after(self) -> None:
        """Start again who has ended; a worker that did so by itself is noted."""
        for at, worker in enumerate(self.workers):
            code = worker.process.poll()
            if code is not None:
                if code != -9:
                    self.notes.append(f"worker {worker.name} ended by itself with code {code}")
                self.workers[at] = self._start_worker(worker.name.partition("-")[0])
        for at, client in enumerate(self.clients):
            if client is not None and client.process.poll() is not None:
                if client.process.returncode != -9:
                    self.notes.append(f"a client ended with code {client.process.returncode}")
                self._start_client(at)

    # Killing -------------------------------------------------------------------------------------

    def kill_somebody(self) -> None:
        """Kill when it is time to."""
        now = time.monotonic()
        if now >= self._next_server_at:
            self._next_server_at = now + SERVER_PAUSE_S * self.dice.uniform(1, 1.6)
            self.kill_server()
        if now >= self._next_kill_at:
            self._next_kill_at = now + self.kill_every_s * self.dice.uniform(0.3, 1.7)
            self._kills += 1
            getattr(self, f"_kill_{self._choose_kind()}")()

    def _choose_kind(self) -> str:
        kinds = list(KILL_WEIGHTS)
        if self._kills <= len(kinds):  # so that a short play has some of each
            return kinds[self._kills - 1]
        return self.dice.choices(kinds, list(KILL_WEIGHTS.values()))[0]

    def _kill_child(self) -> None:
        worker = self.dice.choice(self.workers)
        self.killer.kill_child(worker.process.pid, worker.name, find_busy(self.log))

    def _kill_worker(self) -> None:
        """Kill a worker that has told Redis of itself: on a slow machine none would ever work."""
        worker = self.dice.choice(self.workers)
        is_known = self.connection.zscore(keys.WORKERS, worker.name) is not None
        if (
            is_known
            and worker.process.poll() is None
            and self.killer.kill("worker", worker.process.pid, worker.name)
        ):
            worker.process.wait()

    def _kill_client(self) -> None:
        """Kill a client that has begun to submit."""
        client = self.dice.choice(self.clients)
        pids = {line["pid"] for line in read_lines(self.journal)}
        if client is not None and client.process.pid in pids and client.process.poll() is None:
            self.killer.kill("client", client.process.pid)
            client.process.wait()

    def kill_server(self) -> None:
        """Kill the server, and wait until it is back."""
        pid = int(self.connection.info("server")["process_id"])
        at = time.monotonic()
        os.kill(pid, 9)
        wait_until(self._is_back, 30, pid)
        self.killer.note("server", pid, at, back_s=time.monotonic() - at)

    def _is_back(self, old_pid: int) -> bool:
        try:
            return int(self.connection.info("server")["process_id"]) != old_pid
        except (RedisError, FlowqError):
            return False

    # Looking -------------------------------------------------------------------------------------

    def count_submitted(self) -> int:
        """Return how many graphs the clients know to be submitted."""
        return sum(line["what"] == "submitted" for line in read_lines(self.journal))

    def find_unfinished(self) -> list[str]:
        """Return what still goes on: runs, and whatever is executed, queued, staged or open."""
        states = {run: self.connection.hget(keys.run(run), "state") for run in self._runs()}
        going_on = [
            run for run, state in states.items() if (state or b"").decode() not in RUN_ENDED
        ]
        counts: dict[str, Any] = {
            "executing": self.connection.zcard(f"{keys.PREFIX}:wip:{QUEUE}"),
            "queued": self.connection.llen(keys.queue(QUEUE)),
            "scheduled": self.connection.zcard(f"{keys.PREFIX}:scheduled:{QUEUE}"),
            "deferred": self.connection.zcard(f"{keys.PREFIX}:deferred:{QUEUE}"),
            "waiting for a round": self.connection.zcard(keys.ROUNDS),
            "under a deadline": self.connection.zcard(keys.DEADLINES),
            "to do": self.connection.zcard(keys.TODO),
            "lost": self.connection.zcard(keys.WORKERS) - len(self.workers),
        }
        return going_on + [f"{count} {what}" for what, count in counts.items() if count]

    def _runs(self) -> list[str]:
        found: Any = self.connection.zrange(keys.RUNS, 0, -1)
        return [run.decode() for run in found]

    # The end -------------------------------------------------------------------------------------

    def end_clients(self) -> None:
        """Nothing more is submitted; the clients are killed as ever, in the middle of something."""
        for at, client in enumerate(self.clients):
            if client is not None and self.killer.kill("client", client.process.pid):
                client.process.wait()
            self.clients[at] = None

    def end_workers(self) -> None:
        """Let the workers finish and leave."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.wait(60)
        self.workers.clear()

    def drop_curtain(self) -> None:
        """End everything that is still there, whatever happened."""
        for actor in [*self.workers, *self.clients]:
            if actor is not None and actor.process.poll() is None:
                actor.process.kill()
                actor.process.wait()
        self.connection.close()
        with suppress(FlowqError):
            self.server.stop()


def _patient(socket: Path) -> Redis:
    return Redis(
        unix_socket_path=str(socket),
        retry=Retry(ConstantBackoff(0.05), 200),
        retry_on_error=[BusyLoadingError],
    )


def wait_until(is_done: Callable[..., object], within_s: float, *arguments: object) -> bool:
    """Wait for something; return whether it has happened in time."""
    deadline = time.monotonic() + within_s
    while not is_done(*arguments):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
