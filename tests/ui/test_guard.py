"""What the guard of the page refuses: each promise is attacked."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from redis import Redis
from starlette.responses import RedirectResponse
from starlette.testclient import TestClient

import flowq.ui
from flowq.ui import guard
from flowq.ui.address import Address, local_address, public_address
from flowq.ui.application import make_app
from flowq.ui.guard import MAX_BODY_BYTES, MAX_REQUESTS, MAX_URL_BYTES, Guard, Token
from flowq.ui.site import Site
from tests.runtime.language import RUN, Runs, job

TOKEN = "t" * 43
HOST = "127.0.0.1:8080"
ORIGIN = f"http://{HOST}"
CANCEL = f"/api/runs/{RUN}/cancel"


def site_at(connection: Redis, address: Address, base_url: str = ORIGIN) -> TestClient:
    """The page as `flowq ui` serves it, and a browser that knows nothing."""
    guarded = make_app(Site(connection), Token(TOKEN, address, "ui"), address)
    return TestClient(guarded, base_url=base_url, follow_redirects=False)


@pytest.fixture
def stranger(connection: Redis) -> TestClient:
    """A client of the page on 127.0.0.1:8080, without the token."""
    return site_at(connection, local_address("127.0.0.1", 8080))


@pytest.fixture
def browser(connection: Redis, stranger: TestClient) -> TestClient:
    """A browser that has opened the address with the token, and shows a run."""
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    stranger.get(f"/?token={TOKEN}")
    return stranger


def find_csrf(browser: TestClient) -> str:
    found = re.search(r'name="flowq-token" content="([0-9a-f]{64})"', browser.get("/").text)
    assert found is not None
    return found[1]


def own_headers(browser: TestClient) -> dict[str, str]:
    """What the script of the page sends, and the browser adds."""
    return {
        "X-Flowq-Token": find_csrf(browser),
        "Origin": ORIGIN,
        "Sec-Fetch-Site": "same-origin",
        "Content-Type": "application/json",
    }


def state_of_run(connection: Redis) -> str:
    return flowq.get_run(RUN, connection=connection).record().state


# The token ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/api/runs", "/static/flowq.css", f"/runs/{RUN}", "/nothing", CANCEL, "//x/y"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_nothing_at_all_can_be_had_without_the_token(stranger: TestClient, path: str, method: str):
    reply = stranger.request(method, path)

    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, 'Bearer realm="flowq"')
    assert RUN not in reply.text


@pytest.mark.parametrize(
    "asked",
    [
        {"url": "/?token=" + TOKEN[:-1] + "x"},
        {"url": "/?token="},
        {"url": "/?token=%ff%00"},
        {"url": f"/?token=wrong&token={TOKEN}"},
        {"url": "/", "headers": {"Authorization": f"Bearer {TOKEN}x"}},
        {"url": "/", "headers": {"Authorization": f"Basic {TOKEN}"}},
        {"url": "/", "headers": {"Authorization": "Bearer "}},
        {"url": "/", "headers": {"Authorization": b"Bearer \xff\xfe"}},
        {"url": "/", "headers": {"Cookie": f"flowq-8080={TOKEN}x"}},
        {"url": "/", "headers": {"Cookie": f"flowq-8081={TOKEN}"}},
        {"url": "/", "headers": {"X-Flowq-Token": TOKEN}},
    ],
)
def test_a_wrong_token_opens_nothing(stranger: TestClient, asked: dict[str, Any]):
    assert stranger.get(**asked).status_code == 401


def test_a_token_in_an_address_opens_no_post(stranger: TestClient):
    assert stranger.post(f"{CANCEL}?token={TOKEN}", json={}).status_code == 401


def test_the_address_with_the_token_becomes_a_cookie_and_a_redirect(stranger: TestClient):
    reply = stranger.get(f"/runs/x%20y?after=2&token={TOKEN}&state=failed")

    assert reply.status_code == 303
    assert reply.headers["location"] == "/runs/x%20y?after=2&state=failed"
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith(f"flowq-8080={TOKEN};")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert stranger.get("/").status_code == 200  # by the cookie
    assert stranger.get(f"/?token={TOKEN}").status_code == 303  # as another browser would


def test_the_redirect_leads_to_no_other_host(stranger: TestClient):
    for path in ("//evil.example", "///evil.example", "/%5Cevil.example", "//evil.example/%2e%2e"):
        location = stranger.get(f"{ORIGIN}{path}?token={TOKEN}").headers["location"]

        assert re.match(r"/[^/\\]", location), location


def test_a_head_lands_too_and_a_link_from_elsewhere_comes_again(stranger: TestClient):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    link |= {"Sec-Fetch-Dest": "document"}

    assert stranger.head(f"/?token={TOKEN}").status_code == 303
    stranger.cookies.clear()
    again = stranger.get(f"/runs/{RUN}", headers=link)
    assert (again.status_code, 'http-equiv="refresh"' in again.text) == (401, True)
    # The second request comes from this page, so there is no third one.
    wrong = stranger.get("/?token=wrong", headers=link)  # which would come again for ever
    assert (wrong.status_code, "refresh" in wrong.text) == (401, False)
    own = stranger.get(f"/runs/{RUN}", headers={**link, "Sec-Fetch-Site": "same-origin"})
    assert (own.status_code, "refresh" in own.text) == (401, False)


def test_the_token_is_in_no_log_and_no_page(
    browser: TestClient, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    with caplog.at_level(logging.DEBUG, logger="flowq"):
        browser.get(f"/nothing?token={TOKEN}")
        browser.get(f"/?token={TOKEN}x")
        pages = [browser.get(path) for path in ("/", "/nothing", "/api/runs")]

    told = [record for record in caplog.records if "httpx" not in record.name]
    assert TOKEN not in str([record.getMessage() for record in told]) + "".join(capfd.readouterr())
    for page in pages:
        assert TOKEN not in page.text + str(page.headers)
        assert page.headers["referrer-policy"] == "no-referrer"


# Hosts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/runs", f"/?token={TOKEN}"])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8080",
        "evil.example",
        "127.0.0.1",
        "127.0.0.1:8081",
        "127.0.0.1:8080.evil.example",
        "127.0.0.1@evil.example:8080",
        "localhost.evil.example:8080",
        "[::1].evil.example:8080",
        "[::2]:8080",
        "localhost:",
        "localhost:8080:8080",
        "localhost:99999999999999999999",
        "",
        "::1",
        "10.0.0.1:8080",
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(
    browser: TestClient, host: str, path: str
):
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}

    assert browser.get(path, headers=headers).status_code == 421


@pytest.mark.parametrize("host", [HOST, "localhost:8080", "LocalHost:8080", "[::1]:8080"])
def test_the_names_of_this_machine_are_served(browser: TestClient, host: str):
    assert browser.get("/", headers={"Host": host}).status_code == 200


def test_a_request_with_two_hosts_is_refused(browser: TestClient):
    headers = [("Host", HOST), ("Host", "evil.example"), ("Authorization", f"Bearer {TOKEN}")]

    assert browser.get("/", headers=headers).status_code == 421


def test_a_page_on_all_addresses_is_found_by_digits_but_by_no_other_name():
    everywhere, here = local_address("0.0.0.0", 80), local_address("192.0.2.7", 8080)

    assert everywhere.has("192.0.2.7")
    assert everywhere.has("[2001:db8::1]:80")
    assert not everywhere.has("192.0.2.7:81")
    assert not everywhere.has("evil.example")
    assert here.has("192.0.2.7:8080")
    assert not here.has("localhost:8080")


def test_a_public_url_adds_a_host_an_origin_a_prefix_and_a_secure_cookie(connection: Redis):
    address = public_address("https://jobs.example/flowq/", local_address("127.0.0.1", 8080))
    page = site_at(connection, address)

    for path in ("/flowq/", "/flowq", "/"):  # proxies pass a prefix on, or leave it out
        reply = page.get(f"{path}?token={TOKEN}", headers={"Host": "jobs.example"})
        assert reply.headers["location"] == "/flowq/"
        assert {"Path=/flowq", "Secure"} <= set(reply.headers["set-cookie"].split("; "))
    shown = page.get("/", headers={"Authorization": f"Bearer {TOKEN}"})
    assert 'href="/flowq/static/flowq.css"' in shown.text
    assert address.is_origin("https://jobs.example", "127.0.0.1:8080")
    assert not address.is_origin("http://127.0.0.1:8080", "127.0.0.1:8080")
    for wrong in ("jobs.example", "ftp://jobs.example", "https://", "https://u@h", "https://h?q"):
        with pytest.raises(flowq.errors.UsageError, match="--public-url"):
            public_address(wrong, Address())


@pytest.mark.parametrize("path", ["/now/", "/static", "/api/runs/", "/runs/", "/workers/", "//now"])
def test_no_reply_leads_to_the_address_behind_the_proxy(connection: Redis, path: str):
    page = site_at(connection, public_address("https://jobs.example/flowq/", Address()))
    bearer = {"Authorization": f"Bearer {TOKEN}", "Host": "jobs.example"}

    reply = page.get(f"/flowq{path}", headers=bearer)

    assert (reply.status_code, reply.headers.get("location")) == (404, None)


# Other methods than GET and HEAD --------------------------------------------------------------


def test_the_script_of_the_page_may_act(browser: TestClient, connection: Redis):
    reply = browser.post(CANCEL, json={}, headers=own_headers(browser))

    assert (reply.status_code, state_of_run(connection)) == (200, "canceled")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:8081"}, 403),
        ({"Origin": "http://127.0.0.1:8080.evil.example"}, 403),
        ({"Origin": "http://evil.example@127.0.0.1:8080"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": None, "Sec-Fetch-Site": None}, 403),
        ({"X-Flowq-Token": None}, 403),
        ({"X-Flowq-Token": "0" * 64}, 403),
        ({"X-Flowq-Token": TOKEN}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=application/json"}, 415),
        ({"Content-Type": "text/plain; application/json"}, 415),
        ({"Content-Type": None}, 415),
    ],
)
def test_a_page_of_another_site_can_change_nothing(
    browser: TestClient, connection: Redis, change: dict[str, str | None], code: int
):
    headers = {**own_headers(browser), **change}
    given = {name: value for name, value in headers.items() if value is not None}

    reply = browser.post(CANCEL, content=b"{}", headers=given)

    assert (reply.status_code, reply.json()["kind"]) == (code, "error")
    assert state_of_run(connection) == "running"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X"])
def test_no_method_is_forgotten(browser: TestClient, connection: Redis, method: str):
    headers = {"Origin": "http://evil.example", "Content-Type": "application/json"}
    headers |= {"Access-Control-Request-Method": method}

    reply = browser.request(method, CANCEL, headers=headers)

    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert browser.request(method, CANCEL, headers=own_headers(browser)).status_code == 405
    assert state_of_run(connection) == "running"


def test_a_program_with_the_token_needs_neither_cookie_nor_origin(
    browser: TestClient, connection: Redis
):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    browser.cookies.clear()

    forged = browser.post(CANCEL, json={}, headers={**bearer, "Sec-Fetch-Site": "cross-site"})
    form = browser.post(CANCEL, data={"now": "1"}, headers=bearer)
    assert (forged.status_code, form.status_code) == (403, 415)
    assert state_of_run(connection) == "running"
    assert browser.post(CANCEL, json={}, headers=bearer).status_code == 200


def test_a_browser_behind_a_proxy_that_adds_the_token_needs_the_proof_of_the_page(
    connection: Redis,
):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    address = public_address("https://jobs.example", local_address("127.0.0.1", 8080))
    page = site_at(connection, address, "https://jobs.example")
    page.headers["Authorization"] = f"Bearer {TOKEN}"  # by the proxy
    shown = page.get("/", headers={"Accept": "text/html"})
    csrf = re.search(r'content="([0-9a-f]{64})"', shown.text)
    assert csrf is not None
    own = {"Origin": "https://jobs.example", "X-Flowq-Token": csrf[1]}

    for change in ({"Origin": "https://evil.example"}, {"X-Flowq-Token": "0" * 64}):
        assert page.post(CANCEL, json={}, headers={**own, **change}).status_code == 403
    assert state_of_run(connection) == "running"
    assert page.post(CANCEL, json={}, headers=own).status_code == 200
    page.cookies.clear()
    assert "set-cookie" not in page.get("/api/runs").headers  # as a program asks


def test_get_changes_nothing(browser: TestClient, connection: Redis):
    for path in (CANCEL, f"/api/runs/{RUN}/retry", f"/api/runs/{RUN}/jobs/a/approve"):
        assert browser.get(path).status_code in (404, 405)
    assert state_of_run(connection) == "running"


# Limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"x" * (MAX_BODY_BYTES + 1), 413),
        (b"[]", 400),
        (b"{", 400),
        (b'{"a": NaN}', 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"a": ' + b"9" * 5000 + b"}", 400),
    ],
)
def test_a_body_that_is_no_small_object_is_refused(browser: TestClient, content: bytes, code: int):
    reply = browser.post(CANCEL, content=content, headers=own_headers(browser))

    assert (reply.status_code, reply.json()["kind"]) == (code, "error")


def test_a_body_in_pieces_is_not_read_past_its_limit(browser: TestClient):
    read = []

    def pieces():
        for _ in range(100):
            read.append(1)
            yield b" " * 100_000

    headers = own_headers(browser)

    assert browser.post(CANCEL, content=pieces(), headers=headers).status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    import anyio

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"x"), (b"content-type", b"application/json")]
    headers.append((b"authorization", b"Bearer x"))
    scope = {"type": "http", "method": "POST", "path": "/api/runs", "query_string": b""}
    scope |= {"headers": headers, "scheme": "http", "server": ("x", 80), "root_path": ""}
    assert guard.BODY_S <= 60
    monkeypatch.setattr(guard, "BODY_S", 0.01)

    guarded = Guard(lambda *_: None, lambda _: "ada", Address())
    anyio.run(guarded, scope, anyio.sleep_forever, send)

    assert sent[0]["status"] == 408


def test_long_addresses_and_too_many_requests_are_refused(connection: Redis, browser: TestClient):
    assert browser.get("/?x=" + "y" * MAX_URL_BYTES).status_code == 414
    assert browser.get("/runs/" + "y" * MAX_URL_BYTES).status_code == 414

    assert browser.get("/", headers={"X": "y" * 40_000}).status_code == 431
    assert browser.get("/", headers=[("X", "y")] * 20_000).status_code == 431

    full = make_app(Site(connection), lambda _: "ada")
    full._count = MAX_REQUESTS
    reply = TestClient(full).get("/")
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")


# Replies --------------------------------------------------------------------------------------


def test_every_reply_has_the_headers_that_browsers_obey(connection: Redis, browser: TestClient):
    stranger = site_at(connection, local_address("127.0.0.1", 8080))
    replies = [browser.get(path) for path in ("/", "/nothing", "/api/runs", "/static/flowq.js")]
    replies += [stranger.get("/"), browser.get("/", headers={"Host": "evil"})]

    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cross-origin-resource-policy"] == "same-origin"
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_fault_is_told_without_its_text(connection: Redis, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("secret")

    monkeypatch.setattr("flowq.client.read_run_page", fail, raising=False)
    page = TestClient(make_app(Site(connection), lambda _: "ada"), raise_server_exceptions=False)

    reply = page.get("/api/runs")

    assert (reply.status_code, "secret" in reply.text) == (500, False)
    assert reply.headers["x-content-type-options"] == "nosniff"


# Mounted --------------------------------------------------------------------------------------


@pytest.fixture
def around(connection: Redis) -> TestClient:
    """An application of a user with the page in it, which knows people by a cookie."""
    from fastapi import FastAPI

    application = FastAPI()

    def authorize(request: Any) -> str | None:
        return request.cookies.get("person")

    application.mount("/jobs", flowq.ui.app(connection=connection, authorize=authorize))
    Runs(connection).submit(job("a", "square", with_={"number": 2}))
    return TestClient(application)


def test_a_mounted_page_asks_its_application_who_sends_a_request(around: TestClient):
    assert around.get("/jobs/").status_code == 403
    assert around.get(f"/jobs/?token={TOKEN}").status_code == 403

    around.cookies.set("person", "ada")
    page = around.get("/jobs/")

    assert (page.status_code, 'href="/jobs/static/flowq.css"' in page.text) == (200, True)
    assert "Path=/jobs" in page.headers["set-cookie"]
    assert around.get("/jobs/static/flowq.css").status_code == 200
    assert around.get("/jobs/nothing").status_code == 404


def test_a_mounted_page_keeps_its_guard(around: TestClient, connection: Redis):
    around.cookies.set("person", "ada")
    token = re.search(r'content="([0-9a-f]{64})"', around.get("/jobs/").text)
    assert token is not None
    own = {"Origin": "http://testserver", "X-Flowq-Token": token[1]}
    cancel = f"/jobs{CANCEL}"

    for change in ({"Origin": "http://evil.example"}, {"X-Flowq-Token": "0" * 64}):
        assert around.post(cancel, json={}, headers={**own, **change}).status_code == 403
    assert around.post(cancel, data={"now": "1"}, headers=own).status_code == 415
    assert around.post(cancel, json={}).status_code == 403
    assert state_of_run(connection) == "running"
    assert around.post(cancel, json={}, headers=own).status_code == 200


def test_a_mounted_page_may_be_told_its_hosts_and_ask_a_coroutine(connection: Redis):
    async def authorize(_: Any) -> str | None:
        return "ada"

    page = flowq.ui.app(connection=connection, authorize=authorize, hosts=["jobs.example"])

    assert TestClient(page, base_url="https://jobs.example").get("/").status_code == 200
    assert TestClient(page, base_url="http://evil.example").get("/").status_code == 421


def test_who_is_not_known_is_led_to_a_login_where_a_person_looks(connection: Redis):
    page = flowq.ui.app(connection=connection, authorize=lambda _: RedirectResponse("/login"))
    stranger = TestClient(page, follow_redirects=False)

    reply = stranger.get("/")
    assert (reply.status_code, reply.headers["location"]) == (307, "/login")
    assert reply.headers["cache-control"] == "no-store"
    for path in ("/api/runs", "/metrics"):
        assert stranger.get(path).status_code == 403
    assert stranger.get("/", headers={"Sec-Fetch-Mode": "cors"}).status_code == 403  # the script
    assert stranger.post(CANCEL, json={}).status_code == 403


NO_NAMES = [None, False, True, "", " ", "\t\n", 0, 1, b"ada", object(), ["ada"]]


@pytest.mark.parametrize("named", NO_NAMES)
@pytest.mark.parametrize("is_coroutine", [False, True])
def test_whoever_has_no_name_is_refused(connection: Redis, named: Any, is_coroutine: bool):
    Runs(connection).submit(job("a", "square", with_={"number": 2}))

    async def authorize(_: Any) -> Any:
        return named

    page = flowq.ui.app(
        connection=connection, authorize=authorize if is_coroutine else lambda _: named
    )
    bearer = {"Authorization": "Bearer x"}

    assert TestClient(page).get("/").status_code == 403
    assert TestClient(page).post(CANCEL, json={}, headers=bearer).status_code == 403
    assert state_of_run(connection) == "running"


def test_one_sender_leaves_room_for_others():
    import anyio

    async def ask(name: bytes) -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"x"), (b"x-name", name)]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
        scope |= {"headers": headers, "scheme": "http", "server": ("x", 80), "root_path": ""}
        await guarded(scope, anyio.sleep_forever, send)
        return sent

    async def application(*_: Any) -> None:
        nonlocal served
        served += 1
        await go_on.wait()

    async def attack() -> None:
        nonlocal go_on
        go_on = anyio.Event()
        async with anyio.create_task_group() as tasks:
            for _ in range(guard.MAX_REQUESTS_OF_ONE):
                tasks.start_soon(ask, b"mallory")
            while served < guard.MAX_REQUESTS_OF_ONE:
                await anyio.sleep(0.01)
            assert (await ask(b"mallory"))[0]["status"] == 503
            tasks.start_soon(ask, b"ada")
            while served <= guard.MAX_REQUESTS_OF_ONE:
                await anyio.sleep(0.01)
            go_on.set()
        assert await ask(b"mallory") == []  # nobody replies here, but it is served
        assert served == guard.MAX_REQUESTS_OF_ONE + 2

    served, go_on = 0, anyio.Event()
    guarded = Guard(application, lambda request: request.headers["x-name"], Address())
    anyio.run(attack)
    assert not guarded._count_by_sender


def test_a_websocket_is_closed(connection: Redis):
    import anyio

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    guarded = Guard(lambda *_: None, lambda _: "ada", Address())
    anyio.run(guarded, {"type": "websocket", "path": "/", "headers": []}, receive, send)

    assert sent == [{"type": "websocket.close", "code": 1008}]
