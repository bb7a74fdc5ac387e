"""Forms in a browser: what is checked before it is sent, and what the server refuses."""

from __future__ import annotations

from redis import Redis

from flowq.client import get_run
from flowq.spec import Approval, Input
from tests.runtime.language import RUN, Runs, job
from tests.ui.browser.conftest import Watch
from tests.ui.browser.test_browser import OpenPage, shows


def test_a_field_that_does_not_fit_is_marked(connection: Redis, open_page: OpenPage, watch: Watch):
    asks = (Input("many", "int"), Input("code", pattern="(?i)[a-z]+"), Input("table", "json"))
    Runs(connection).submit(
        job("a", "square", with_={"number": 2}, approval=Approval("go?", inputs=asks))
    )
    watch.expected = ["status of 400"]
    page = open_page(f"/runs/{RUN}/jobs/a")
    many, code, table = (page.get_by_label(each.name) for each in asks)
    approve = page.locator("form.act button", has_text="Approve")

    many.fill("x")
    code.fill("12")
    approve.click()  # the browser refuses it
    assert page.evaluate("document.activeElement.matches(':invalid')")
    many.fill("3")
    table.fill('{"rows": ')
    approve.click()  # the script does
    assert "not JSON" in table.evaluate(
        "field => field.matches(':focus') && field.validationMessage"
    )
    table.fill('{"rows": 2}')
    approve.click()  # the server does
    shows(page, "form.act output.bad", "must match (?i)[a-z]+")
    assert "must match (?i)[a-z]+" in code.evaluate("field => field.validationMessage")
    assert code.evaluate("field => field.matches(':user-invalid')")
    assert "code" in page.evaluate("document.activeElement.name")
    with page.expect_response("**/approve"):
        approve.click()  # the server may think otherwise by now
    shows(page, "form.act output.bad", "must match (?i)[a-z]+")
    code.fill("ab")
    assert code.evaluate("field => field.checkValidity()")
    approve.click()
    shows(page, "dd", "ab")
    decision = get_run(RUN, connection).job_records()["a"].decision
    assert decision is not None
    assert decision.inputs == {"many": 3, "code": "ab", "table": {"rows": 2}}
