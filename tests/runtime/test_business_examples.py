"""Three examples from an office: a nightly ETL, invoices, and a release."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flowq.client import Run

WORKFLOWS = Path(__file__).parents[2] / "workflows"
Work = Callable[..., None]


def test_the_etl_loads_once_somebody_has_looked(
    run_example: Callable[..., Run], work: Work, tmp_path: Path
) -> None:
    ran = run_example("etl.yaml")
    assert ran.status().state == "waiting"
    explained = str(ran.explain("load"))
    assert "it waits for an approval: Load what was extracted" in explained
    assert "run.approve('load')" in explained

    ran.release("load")
    work()
    assert ran.status().state == "succeeded"
    rows = ran.results()["check"]
    assert ran.results()["tell"] == f"load finished, {rows} rows"
    with sqlite3.connect(tmp_path / ran.results()["load"]) as database:
        regions = dict(database.execute("select region, count(*) from sales group by region"))
    assert set(regions) == {"eu", "us", "asia"}
    assert sum(regions.values()) == rows


def test_the_etl_tells_also_when_nobody_approves(
    run_example: Callable[..., Run], work: Work
) -> None:
    ran = run_example("etl.yaml")
    ran.cancel()
    work()
    assert ran.status().state == "canceled"
    assert ran.results()["tell"].startswith("load canceled")


@pytest.mark.parametrize(("wrong", "state"), [(0, "succeeded"), (4, "succeeded"), (5, "failed")])
def test_a_fifth_of_the_invoices_may_fail(
    run_example: Callable[..., Run], wrong: int, state: str, tmp_path: Path
) -> None:
    ran = run_example("invoices.yaml", customers=20, wrong=wrong)
    assert ran.status().state == state
    assert len(list((tmp_path / "out" / "invoices").glob("*.txt"))) == 20 - wrong
    if state == "succeeded":
        assert ran.results()["mail"].startswith(f"{20 - wrong} invoices; none for ")


def test_a_release_is_packed_and_published_only_on_request(
    run_example: Callable[..., Run], tmp_path: Path
) -> None:
    ran = run_example("release.yaml", version="2.0.1")
    status = ran.status()
    assert (status.state, status.jobs["publish"].state) == ("succeeded", "skipped")
    package = ran.results()["pack"]
    assert ran.results()["announce"] == f"released 2.0.1 as {package}"
    with tarfile.open(tmp_path / package) as packed:
        assert "src/hello.sh" in packed.getnames()

    published = run_example("release.yaml", version="2.0.1", publish=True)
    assert published.results()["publish"] == ["hello-2.0.1.tar"]
