"""The pages in a real browser, with real workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

from flowq.client import Run
from flowq.spec import Approval, JobSpec
from tests.runtime.language import RUN, Runs, each
from tests.ui.browser.conftest import PageServer, Watch
from tests.ui.test_pages import addresses, submit_hostile, submit_some
from tests.workers.real_servers import Servers

if TYPE_CHECKING:
    from playwright.sync_api import Page

OpenPage = Callable[..., "Page"]


def call(name: str, function: str, **more: Any) -> JobSpec:
    return JobSpec(name, f"page_jobs:{function}", **more)


def submit_run(connection: Redis, gate: Path) -> None:
    """A run that prints until the gate is there, has failures, and asks."""
    Runs(connection).submit(
        call("items_", "say", with_={"text": "listing", "value": [1, 2, 3, 4]}),
        call(
            "part",
            "fail_if",
            with_={"value": "${{ item }}", "bad": 3},
            for_each=each("${{ jobs.items_.result }}"),
        ),
        call("broken", "fail", with_={"text": "no such table: orders"}),
        call("talks", "print_until", with_={"path": str(gate)}),
        call("ship", "say", with_={"text": "shipped"}, approval=Approval("Ship it?")),
    )


def start_workers(start_worker: Callable[..., Any]) -> None:
    """Start two: one of them is busy with the job that waits for the gate."""
    start_worker()
    start_worker()


def shows(page: Page, selector: str, text: str = "") -> None:
    """Wait until an element with this text is visible."""
    page.locator(selector, has_text=text).first.wait_for()


def place_of(element: Any) -> tuple[float, float]:
    """Where it is in the window."""
    box = element.bounding_box()
    return box["x"], box["y"]


def widest(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


SCROLLS = "[...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"


def test_a_page_follows_a_run_and_nothing_moves_under_the_pointer(
    connection: Redis, open_page: OpenPage, start_worker: Callable[..., Any], tmp_path: Path
):
    gate = tmp_path / "gate"
    submit_run(connection, gate)
    page, now = open_page(f"/runs/{RUN}"), open_page("/now")
    log = open_page(f"/runs/{RUN}/jobs/talks")  # before it has begun
    page.evaluate("window.loaded = 'once'")
    row = page.locator("[aria-label=Jobs] tr[data-key=ship] th a")
    row.hover()
    before = place_of(row)
    start_workers(start_worker)
    shows(page, "[data-failure='part[2]']", "LookupError: 3 is bad")
    shows(page, "[data-failure=broken]", "no such table: orders")
    shows(page, "[data-job=part] [data-counts]", "3 finished")
    shows(page, "[data-counts]", "2 failed")
    assert place_of(row) == pytest.approx(before, abs=1.5)
    assert page.locator("svg [data-job=broken].failed").count() == 1
    assert page.title() == "▶ demo (2 failed) – flowq"
    shows(page, "[data-announce]:not(:empty)")
    shows(page, "details", "Traceback")  # which no frame has: the page has read itself again
    shows(now, "tbody tr", "talks")  # a list that was empty
    shows(log, "pre.log", "line 0\nline 1\n")
    log.wait_for_function("() => document.querySelector('pre.log').innerText.includes('line 50')")
    assert "\\x1b" not in log.inner_text("main")
    assert "\\u001b" not in log.inner_text("main")
    assert log.title() == "▶ talks – flowq"
    stay_current_while_nothing_happens(log)
    gate.touch()
    Run(RUN, connection).approve("ship", by="ada")
    shows(page, ".approval dd", "by ada")
    shows(page, "[data-status] [data-state=failed]")
    log.wait_for_function("() => document.title == '✓ talks – flowq'")
    shows(page, "form.act", "again")
    assert page.evaluate("window.loaded") == "once"


def stay_current_while_nothing_happens(page: Page) -> None:
    """Ages go on by themselves, and the page reads itself again: the clock of the browser jumps."""
    page.clock.install()
    page.reload()
    read = page.locator("footer time").get_attribute("datetime")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route(page.url, hold)
    page.clock.fast_forward(20_000)
    page.locator("[data-since]", has_text=re.compile(r"^([2-9]\ds|\d+m )")).wait_for()
    while not held:
        page.wait_for_timeout(10)
    held[0].continue_()
    page.unroute(page.url)
    page.wait_for_function(
        "read => document.querySelector('footer time').dateTime != read", arg=read
    )


def test_pages_resume_when_their_server_was_killed(
    connection: Redis,
    open_page: OpenPage,
    page_server: PageServer,
    start_worker: Callable[..., Any],
    tmp_path: Path,
    watch: Watch,
):
    watch.expected = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_EMPTY", "ERR_CONN"]
    gate = tmp_path / "gate"
    submit_run(connection, gate)
    run, runs = open_page(f"/runs/{RUN}"), open_page("/")
    shows(run, "[data-counts]", "deferred")
    page_server.kill()
    shows(run, "#connection", "not connected since")
    shows(runs, "#connection", "not connected since")
    start_workers(start_worker)
    gate.touch()
    page_server.start()
    shows(run, "[data-status] [data-state=waiting]")
    shows(runs, "tbody tr", "waiting")
    run.locator("#connection").wait_for(state="hidden")
    runs.locator("#connection").wait_for(state="hidden")


def test_pages_resume_when_redis_was_restarted(open_page: OpenPage, tmp_path: Path, watch: Watch):
    watch.expected = ["503", "ERR_INCOMPLETE_CHUNKED"]  # its server is killed under it
    with Servers(tmp_path) as servers:
        started = servers.start(config="appendonly yes\nappendfsync always")
        Runs(started.connection).submit(call("a", "say", with_={"text": "a"}))
        site = PageServer(started.url, tmp_path)
        watch.url = site.url
        site.start()
        try:
            page = open_page(f"/runs/{RUN}", site)
            shows(page, "[data-job=a]")
            started.process.kill()
            started.process.wait()
            shows(page, "#connection", "the server of the runs is away since")
            servers.start_again(started)
            page.locator("#connection").wait_for(state="hidden")
            Run(RUN, started.connection).cancel()
            shows(page, "[data-status] [data-state=canceled]")
        finally:
            site.kill()


def test_hostile_texts_execute_nothing(
    connection: Redis, open_page: OpenPage, work: Callable[..., None], watch: Watch
):
    watch.expected = ["status of 404", "status of 400"]  # pages that some runs do not have
    page = open_page("/")
    runs = submit_hostile(connection, lambda: None)
    first, *others = [open_page(f"/runs/{run}") for run in runs]
    work()
    for each_page in (first, *others):  # in a frame
        shows(each_page, "[data-failure=fails]")
        assert each_page.locator("main script, main img").count() == 0
    for address in addresses(runs):
        page.goto(watch.url + address)
        assert page.locator("main script, main img").count() == 0


def test_everything_can_be_read_without_script(
    connection: Redis, open_page: OpenPage, work: Callable[..., None]
):
    (one, bad, asks, mails) = submit_some(connection, work)
    page = open_page("/", java_script_enabled=False)
    for run in (one, bad, asks, mails):
        assert page.locator(f"a[href$='/runs/{run}']").count()
    page.locator(f"a[href$='/runs/{asks}']").first.click()
    assert "This button needs JavaScript" in page.content()
    page.go_back()
    page.locator(f"a[href$='/runs/{bad}']").first.click()
    assert page.locator("[data-failure=bad]", has_text="ValueError").count() == 1
    page.locator("tr[data-job=bad] a").first.click()
    assert page.locator("pre", has_text="ValueError").count()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible_and_fit_a_phone(
    connection: Redis,
    open_page: OpenPage,
    work: Callable[..., None],
    watch: Watch,
    scheme: str,
):
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    watch.expected = ["status of 404", "status of 400"]  # whose pages are looked at, too
    runs = submit_some(connection, work)
    page = open_page("/", color_scheme=scheme, reduced_motion="reduce")
    base = page.url.rstrip("/")
    found = []
    kinds = {address.replace(run, "RUN"): address for run in runs for address in addresses([run])}
    for address in kinds.values():
        page.set_viewport_size({"width": 1280, "height": 800})
        page.goto(base + address)
        for violation in axe.run(page).response["violations"]:
            nodes = [each["html"][:200] for each in violation["nodes"][:3]]
            found.append((address, violation["id"], nodes))
        if address == "/" and page.evaluate(SCROLLS):
            found.append((address, "a table scrolls", []))
        if page.evaluate("document.getAnimations().length"):
            found.append((address, "moves", []))
        page.set_viewport_size({"width": 400, "height": 800})
        if (by := widest(page)) > 0:
            found.append((address, f"{by} pixels too wide", []))
    assert not found
