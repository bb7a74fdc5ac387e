"""URLs of servers: which one is meant, how it is shown, what is said when nobody answers."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq import server
from flowq.errors import ServerUnavailable
from flowq.server.connection import server_errors

# --- which one is meant ---


@pytest.mark.parametrize(
    ("option", "variables", "expected"),
    [
        ("redis://a", {"FLOWQ_REDIS_URL": "redis://b", "RQ_REDIS_URL": "redis://c"}, "redis://a"),
        (None, {"FLOWQ_REDIS_URL": "redis://b", "RQ_REDIS_URL": "redis://c"}, "redis://b"),
        (None, {"RQ_REDIS_URL": "redis://c"}, "redis://c"),
        (None, {}, None),
        ("", {"FLOWQ_REDIS_URL": " ", "RQ_REDIS_URL": ""}, None),
        (None, {"FLOWQ_REDIS_URL": "redis://b\n"}, "redis://b"),
    ],
)
def test_the_option_goes_before_the_variables(
    option: str | None, variables: dict[str, str], expected: str | None
) -> None:
    assert server.resolve_url(option, variables) == expected


def test_the_environment_is_read_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWQ_REDIS_URL", "redis://from-the-environment")
    assert server.resolve_url(None) == "redis://from-the-environment"


# --- how it is shown ---


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://localhost/0?db=1&socket_timeout=5",
        "rediss://example.com:6380/2?ssl_cert_reqs=none",
        "redis://[::1]:6379/0",
        "unix:///home/me@work/a:b/.flowq/server.sock?db=0",
        "unix:///with%20space/server.sock",
        "redis+sentinel://a:26379,b.example.com:26379,[::1]/flows/2?socket_timeout=3",
        "rediss+cluster://10.0.0.1:7001,10.0.0.2",
        "",
        "localhost:6379",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert server.hide_password(url) == url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:pw@host:6379/0", "redis://me:***@host:6379/0"),
        ("redis://:pw@host", "redis://:***@host"),
        ("rediss://:pw@host/1?db=2", "rediss://:***@host/1?db=2"),
        ("redis://pw@host", "redis://***@host"),
        ("redis://:p%40w@host", "redis://:***@host"),
        ("redis://:p@w/x#y?z@host", "redis://:***@host"),
        ("redis://me:p:w@host", "redis://me:***@host"),
        ("redis://host/0?password=pw", "redis://host/0?password=***"),
        ("redis://host/0?db=1&password=p@w&w", "redis://host/0?db=1&password=***"),
        ("redis://host?pass%77ord=pw", "redis://host?pass%77ord=***"),
        ("redis://host?db=0;password=pw", "redis://host?db=***"),
        ("redis://host?ssl_password=pw#w", "redis://host?ssl_password=***"),
        ("unix://me:pw@/run/redis.sock", "unix://me:***@/run/redis.sock"),
        ("unix:///run/redis.sock?password=pw", "unix:///run/redis.sock?password=***"),
        ("REDIS://:pw@host", "REDIS://:***@host"),
        ("redis://:pw", "redis://:***"),
        ("me:pw@host:6379", "me:***@host:6379"),
        (":p://w@host", ":***@host"),
        ("redis://:pw@one,redis://:pw@two", "redis://:***@two"),
        ("redis+sentinel://me:p@w@a:1,b:2/flows", "redis+sentinel://me:***@a:1,b:2/flows"),
        ("redis+sentinel://a/f?sentinel_password=pw", "redis+sentinel://a/f?sentinel_password=***"),
        ("redis+cluster://:pw", "redis+cluster://:***"),
    ],
)
def test_a_password_is_hidden_wherever_it_stands(url: str, shown: str) -> None:
    assert server.hide_password(url) == shown


@given(st.text(), st.text())
def test_no_part_of_a_password_is_shown(before: str, after: str) -> None:
    secret = f"{before}s3cr3t{after}"
    for shape in ("redis://me:{}@host:1/0", "rediss://:{}@host", "unix://:{}@/run/redis.sock"):
        assert "s3cr3t" not in server.hide_password(shape.format(quote(secret, safe="")))
    assert "s3cr3t" not in server.hide_password(f"redis://host/0?db=1&password={secret}")


@given(st.text(alphabet="aZ9:@/?#&;=%!$~.- \n", min_size=0, max_size=8))
def test_not_even_of_one_that_was_not_encoded(around: str) -> None:
    shown = server.hide_password(f"redis://me:{around}s3cr3t{around}@host:6379/0")
    assert "s3cr3t" not in shown


# --- what is said when it does not answer ---


@pytest.mark.parametrize(
    "url",
    ["", "garbage", "http://host", "redis://h:99999", "redis://[::1", "redis://h?socket_timeout=x"],
)
def test_what_is_no_url_is_told_with_the_shapes_that_are(url: str) -> None:
    with pytest.raises(ServerUnavailable, match="write redis://HOST:PORT/DB") as caught:
        server.connect(url)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis+sentinel://host:26379", "the name of the service is missing"),
        ("redis+sentinel://host:26379/flows/two", "the name of the service is missing"),
        ("redis+sentinel://one:x,two/flows", "'one:x' is not HOST:PORT"),
        ("redis+sentinel:///flows", "'' is not HOST:PORT"),
        ("redis+cluster://host/2", "a cluster has no databases"),
        ("redis+sentinel://host/a?socket_timeout=x", "Invalid value for 'socket_timeout'"),
    ],
)
def test_what_is_wrong_with_a_url_of_several_servers_is_said(url: str, reason: str) -> None:
    with pytest.raises(ServerUnavailable, match=reason):
        server.connect(url)


def test_sentinels_may_want_another_password_than_the_server() -> None:
    url = "rediss+sentinel://me:p%40w@one,two:1/flows/3?sentinel_password=s&ssl_ca_certs=/ca"
    pool = server.make_client(url, socket_timeout=7).connection_pool
    options, asking = pool.connection_kwargs, pool.sentinel_manager.sentinel_kwargs
    assert (options["username"], options["password"], options["db"]) == ("me", "p@w", 3)
    assert (options["socket_timeout"], options["ssl_ca_certs"]) == (7, "/ca")
    assert (asking["password"], asking["ssl"], asking["ssl_ca_certs"]) == ("s", True, "/ca")
    assert "username" not in asking


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(ServerUnavailable, match="Connection refused") as caught:
        server.connect("redis://me:s3cr3t@127.0.0.1:1/0")
    assert caught.value.url == "redis://me:***@127.0.0.1:1/0"
    assert "s3cr3t" not in str(caught.value)


def test_a_password_cut_in_two_by_the_parser_is_not_in_the_error() -> None:
    with pytest.raises(ServerUnavailable) as caught:
        server.connect("redis://:s3cr3t/more@host")
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_refused_password_and_a_missing_one_are_told_as_such() -> None:
    with server.temporary() as started:
        with started.connect() as connection:
            connection.config_set("requirepass", "right")
        place = started.url.removeprefix("unix://")
        for url in (started.url, f"unix://:wrong@{place}"):
            with pytest.raises(ServerUnavailable, match="refuses the password"):
                server.connect(url)
        with server.connect(f"unix://:right@{place}") as connection:
            assert connection.ping()


def test_a_full_memory_is_told_as_such() -> None:
    with server.temporary() as started, started.connect() as connection:
        connection.config_set("maxmemory", "1")
        with (
            pytest.raises(
                ServerUnavailable, match=r"be used: its memory is full \(maxmemory\); raise that"
            ),
            server_errors(started.url),
        ):
            connection.set("key", "value")


def test_the_url_may_set_its_own_timeouts() -> None:
    with server.temporary() as started, server.connect(started.url + "&socket_timeout=7") as found:
        assert found.connection_pool.connection_kwargs["socket_timeout"] == 7.0


# --- what is wrong with a server that answers ---


def test_a_server_that_may_lose_jobs_is_warned_about() -> None:
    with server.temporary() as started, started.connect() as connection:
        assert [warning for warning in server.health(connection) if "on disk" in warning]
        connection.config_set("save", "60 1")
        assert server.health(connection) == []
        connection.config_set("maxmemory-policy", "allkeys-lru")
        (warning,) = server.health(connection)
        assert "maxmemory-policy allkeys-lru" in warning
        connection.config_set("save", "")
        assert len(server.health(connection)) == 2


@pytest.mark.parametrize(
    ("version", "is_old"), [("5.0.14.1", True), ("6.0.9", True), ("6.2.0", False), ("7.2.4", False)]
)
def test_a_server_that_is_too_old_is_warned_about(
    version: str, is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.temporary() as started, started.connect() as connection:
        connection.config_set("save", "60 1")
        info = connection.info  # of a real server, but for its age
        monkeypatch.setattr(
            connection, "info", lambda section: {**info(section), "redis_version": version}
        )
        found = server.health(connection)
    assert [f"Redis {version}" in warning for warning in found] == [True] * is_old


def test_a_server_that_tells_nothing_is_not_warned_about() -> None:
    with server.temporary() as started, started.connect() as connection:
        connection.execute_command("ACL", "SETUSER", "default", "-config", "-info")
        assert server.health(connection) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody can write over arguments")
def test_a_password_in_an_argument_leaves_the_list_of_processes() -> None:
    program = (
        "import sys; from pathlib import Path; from flowq.cli.main import commands\n"
        "ctx = commands.make_context('flowq', sys.argv[1:])\n"
        "name, command, rest = commands.resolve_command(ctx, sys.argv[1:])\n"
        "command.make_context(name, rest)\n"
        "print(Path('/proc/self/cmdline').read_text().split(chr(0)), sys.argv[4])"
    )
    url = "redis://me:hunter2-Zq9XkLm@localhost:6379/0"
    words = [sys.executable, "-c", program, "status", "r1", "--redis-url", url]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    listed, _, kept = done.stdout.rstrip().rpartition(" ")
    assert "hunter2" not in listed
    assert "redis://me:***@localhost:6379/0 " in listed
    assert kept == url
    assert done.stderr == ""


def test_where_that_cannot_be_a_warning_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowq.cli.main import commands

    monkeypatch.setattr("flowq.server.url.sys.platform", "darwin")
    for url, warns in (("redis://:hunter2@localhost", True), ("redis://localhost", False)):
        name, command, rest = commands.resolve_command(
            commands.make_context("flowq", ["status"]), ["status", "r1", "--redis-url", url]
        )
        assert command is not None
        command.make_context(name, rest)
        printed = capsys.readouterr().err
        assert ("set FLOWQ_REDIS_URL instead" in printed) == warns
        assert "hunter2" not in printed
