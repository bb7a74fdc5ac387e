"""What the page costs a browser, and what its viewers cost a run.

    python benchmarks/page.py [--jobs 2000] [--items 10000] [--viewers 50] [--pairs 3] [--steady 60]

With Playwright and Chromium, first a run of so many jobs (one in twenty fails, one asks for an
approval) and a run with a group of so many items are opened while workers execute them: first
paint, bytes, the longest tasks of the main thread, and the memory of page and server. Then runs of
the group are executed in pairs, without and with so many viewers: HTTP clients in a process of
their own that read the events of the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis

from flowq import server
from flowq.client import Run, submit
from flowq.graph import build_graph
from flowq.pictures.stored import make_source
from flowq.planner import make_plan
from flowq.spec import Approval, ForEach, JobSpec, Workflow
from flowq.workers import start

CODE = """
import time

def work(number, bad=-1, pause_s=0.0):
    time.sleep(pause_s)
    if number == bad:
        raise ValueError(f"{number} is bad")
    return number

def numbers(count):
    return list(range(count))
"""
WIDTH = 100
WORKERS = 2
OBSERVE = """
window.longest = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.longest = Math.max(window.longest, entry.duration);
}).observe({ type: "longtask", buffered: true });
"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"


@dataclass
class Place:
    """A server, the page on it, and the folder with the code of the jobs."""

    connection: Redis
    redis_url: str
    url: str
    token: str
    page_pid: int
    folder: Path

    @contextmanager
    def workers(self) -> Iterator[None]:
        """Execute jobs in the block."""
        started = [
            start(url=self.redis_url, mode="warm", paths=[str(self.folder)]) for _ in range(WORKERS)
        ]
        try:
            yield
        finally:
            for each in started:
                each.terminate()
            for each in started:
                each.wait()


@contextmanager
def open_place() -> Iterator[Place]:
    """Start a server and the page."""
    with tempfile.TemporaryDirectory() as name, server.temporary() as started:
        folder = Path(name)
        (folder / "page_work.py").write_text(CODE)
        sys.path.append(name)
        token, file = secrets.token_urlsafe(32), folder / "token"
        file.write_text(token)
        file.chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "flowq", "ui", "--no-open", "--port", str(port)]
        command += ["--token-file", str(file), "--redis-url", started.url]
        page = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
            url = f"http://127.0.0.1:{port}"
            yield Place(started.connect(), started.url, url, token, page.pid, folder)
        finally:
            page.kill()
            page.wait()


def wait_for(is_done: Callable[[], object], within_s: float = 900) -> None:
    """Wait until something is true; an OSError is not."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if is_done():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError("it takes too long")


def submit_jobs(count: int, connection: Redis) -> Run:
    """Submit layers of jobs, each behind one of the layer before it."""
    jobs = [
        JobSpec(
            f"job_{number:04}",
            "page_work:work",
            with_={"number": number, "bad": number if number % 20 == 19 else -1, "pause_s": 0.005},
            needs=(f"job_{number - WIDTH:04}",) if number >= WIDTH and number % 20 else (),
        )
        for number in range(count)
    ]
    gate = JobSpec("gate", "page_work:work", with_={"number": 1}, approval=Approval("Go on?"))
    return submit_workflow(Workflow("many_jobs", (*jobs, gate)), connection)


def submit_items(count: int, connection: Redis, bad: int = 7) -> Run:
    """Submit a group of so many items, one of which fails."""
    jobs = (
        JobSpec("list_", "page_work:numbers", with_={"count": count}),
        JobSpec(
            "page",
            "page_work:work",
            with_={"number": "${{ item }}", "bad": bad},
            for_each=ForEach("${{ jobs.list_.result }}"),
        ),
    )
    return submit_workflow(Workflow("many_items", jobs), connection)


def submit_workflow(workflow: Workflow, connection: Redis) -> Run:
    """Submit a run with its stored picture."""
    graph = build_graph(workflow)
    plan = make_plan(graph, {}, f"run{secrets.token_hex(4)}")
    object.__setattr__(plan, "source", make_source(graph))
    return submit(plan, connection)


def rss_mb(pid: int) -> float:
    """Return the memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


# A browser ------------------------------------------------------------------------------------


def find_busiest_ms(trace: dict[str, Any]) -> float:
    """Return the most CPU time of one task of a page's main thread.

    On a busy machine, the time by the clock also has that of others.
    """
    events = trace["traceEvents"]
    mains = {
        (each["pid"], each["tid"])
        for each in events
        if each.get("name") == "thread_name" and each["args"].get("name") == "CrRendererMain"
    }
    return max(
        (
            each["tdur"] / 1000
            for each in events
            if "tdur" in each and (each["pid"], each["tid"]) in mains
        ),
        default=-1,
    )


def look(place: Place, name: str, run: Run, steady_s: float, browser: Any) -> None:
    """Open a run before its workers start, and tell what that costs."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{place.url}/?token={place.token}")
    page.add_init_script(OBSERVE)
    network = context.new_cdp_session(page)
    network.send("Network.enable")
    sizes: list[float] = []
    network.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    page.goto(f"{place.url}/runs/{run.run_id}")
    page.wait_for_timeout(1_000)
    first_ms, loaded = page.evaluate(PAINT), sum(sizes)
    print(f"{name}: before it runs: first paint {first_ms:.0f} ms, {loaded / 1e3:.0f} kB")
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    with place.workers():
        began = time.monotonic()
        while run.record().state == "running" and time.monotonic() - began < 600:
            page.wait_for_timeout(500)
        page.wait_for_timeout(500)
    busiest_ms = find_busiest_ms(json.loads(browser.stop_tracing()))
    print(
        f"{name}: {time.monotonic() - began:.0f} s of a run: longest task "
        f"{page.evaluate('window.longest'):.0f} ms ({busiest_ms:.0f} ms of CPU), "
        f"{sum(sizes) / 1e3:.0f} kB since the page was opened; title {page.title()!r}"
    )
    page.goto(f"{place.url}/runs/{run.run_id}")
    page.wait_for_timeout(1_000)
    print(
        f"{name}: afterwards: first paint {page.evaluate(PAINT):.0f} ms, "
        f"longest task {page.evaluate('window.longest'):.0f} ms"
    )
    network.send("Performance.enable")
    for second in range(0, int(steady_s) + 1, max(1, int(steady_s) // 3)):
        network.send("HeapProfiler.collectGarbage")
        told = {
            each["name"]: each["value"]
            for each in network.send("Performance.getMetrics")["metrics"]
        }
        heap, nodes = told["JSHeapUsedSize"] / 1e6, told["Nodes"]
        print(
            f"{name}: after {second} s: heap {heap:.1f} MB, {nodes:.0f} nodes, "
            f"server {rss_mb(place.page_pid):.0f} MB"
        )
        page.wait_for_timeout(1_000 * max(1, int(steady_s) // 3))
    context.close()


def look_at_all(place: Place, options: argparse.Namespace) -> None:
    """Open the large runs in Chromium."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - where it is installed
    except ImportError:
        print("browser: left out: Playwright is not installed (.ci/browser)")
        return
    program = shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        run = submit_jobs(options.jobs, place.connection)
        look(place, f"{options.jobs} jobs", run, options.steady, browser)
        run = submit_items(options.items, place.connection)
        look(place, f"{options.items} items", run, 0, browser)
        browser.close()


# Viewers --------------------------------------------------------------------------------------


async def read_streams(url: str, token: str, run_id: str, count: int) -> None:
    """Read the events of a run as so many viewers, until its end; print what each got."""
    import httpx  # noqa: PLC0415 - only here

    async def read(client: httpx.AsyncClient) -> tuple[int, int]:
        frames = size = 0
        async with client.stream("GET", f"{url}/api/runs/{run_id}/events") as reply:
            reply.raise_for_status()
            async for chunk in reply.aiter_bytes():
                frames, size = frames + chunk.count(b"\nid: "), size + len(chunk)
        return frames, size

    limits = httpx.Limits(max_connections=count)
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(timeout=None, limits=limits, headers=headers) as client:
        got = await asyncio.gather(*(read(client) for _ in range(count)))
    frames, sizes = zip(*got, strict=True)
    print(f"frames {min(frames)} to {max(frames)}, at most {max(sizes) / 1e3:.1f} kB")


def execute(place: Place, count: int, viewers: int) -> tuple[float, float, float]:
    """Execute a run; return its seconds, the CPU seconds of its workers and the server of the
    queue, and those of the page server."""
    run, readers = submit_items(count, place.connection, bad=-1), None
    if viewers:
        words = [sys.executable, __file__, "--read", place.url, run.run_id, str(viewers)]
        readers = subprocess.Popen(words, stdin=subprocess.PIPE, text=True)
        assert readers.stdin is not None
        readers.stdin.write(place.token)
        readers.stdin.close()
        time.sleep(3)
    server_pid = place.connection.info("server")["process_id"]
    before, began = cpu_s(place.page_pid), cpu_s(server_pid)
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    with place.workers():
        wait_for(lambda: run.record().state != "running")
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = cpu_s(server_pid) - began
    own += ended.ru_utime + ended.ru_stime - waited.ru_utime - waited.ru_stime
    if readers is not None:
        readers.wait(60)
    record = run.status()
    assert record.started_at is not None
    first = min(job.started_at for job in record.jobs.values() if job.started_at)
    assert record.ended_at is not None
    return (record.ended_at - first).total_seconds(), own, cpu_s(place.page_pid) - before


def compare(place: Place, options: argparse.Namespace) -> None:
    """Execute runs without and with viewers, in turn."""
    found: dict[int, list[tuple[float, float, float]]] = {0: [], options.viewers: []}
    for number in range(options.pairs):
        for viewers in sorted(found, reverse=bool(number % 2)):
            figures = execute(place, options.items, viewers)
            found[viewers].append(figures)
            seconds, own, page = figures
            print(
                f"{viewers} viewers: {seconds:.2f} s; CPU: {own:.2f} s of the run, {page:.2f} s of "
                "the page server",
                flush=True,
            )
    without, with_ = (
        [statistics.median(each) for each in zip(*found[viewers], strict=True)]
        for viewers in (0, options.viewers)
    )
    print(
        f"{options.viewers} viewers of a run of {options.items} items: "
        f"{100 * (with_[0] / without[0] - 1):+.1f} % of its time, "
        f"{100 * (with_[1] / without[1] - 1):+.1f} % of its CPU time, and the page server took "
        f"{100 * with_[2] / without[1]:.1f} % of that"
    )


def main() -> None:
    """Measure what the command line asks for."""
    if sys.argv[1:2] == ["--read"]:
        url, run_id, count = sys.argv[2:]
        asyncio.run(read_streams(url, sys.stdin.read(), run_id, int(count)))
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steady", type=float, default=60.0, help="seconds of looking at memory")
    options = parser.parse_args()
    with open_place() as place:
        look_at_all(place, options)
        if options.pairs:
            compare(place, options)


if __name__ == "__main__":
    main()
