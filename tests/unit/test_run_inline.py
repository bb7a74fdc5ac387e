"""`flowq.testing.run_inline`: a whole run in this process, without a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import flowq
from flowq.testing import InlineRun, assert_order, run_inline, wait_until
from tests.reading import parse_workflow

ROOT = Path(__file__).parents[2]


def run(text: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> InlineRun:
    return run_inline(parse_workflow(text, "w.yaml"), inputs, **options)


def fail_times(count: int, error: Exception, result: Any) -> Callable[..., Any]:
    """Return a function that raises `error` so often, and then returns `result`."""
    left = [error] * count
    return Mock(side_effect=lambda **_: (_ for _ in ()).throw(left.pop()) if left else result)


SHOP = """
inputs: {month: {type: str}}
jobs:
  fetch:
    call: shop:fetch
    with: {month: "${{ inputs.month }}"}
  resize:
    for_each: ${{ jobs.fetch.result }}
    call: shop:resize
    with: {photo: "${{ item }}"}
  page:
    call: shop:page
    with: {photos: "${{ jobs.resize.results }}"}
outputs: {page: "${{ jobs.page.result }}"}
"""


def test_jobs_are_replaced_by_functions_results_and_exceptions() -> None:
    resize = Mock(side_effect=lambda photo: photo.upper())
    ran = run(
        SHOP,
        {"month": "2026-10"},
        replace={
            "fetch": lambda month: [f"{month}-a", f"{month}-b"],
            "resize": resize,
            "page": "a page",
        },
    )
    assert ran.state == "succeeded"
    assert ran.results["resize"] == ["2026-10-A", "2026-10-B"]
    assert ran.results["resize[1]"] == "2026-10-B"
    assert ran.outputs == {"page": "a page"}
    assert ran.order == ("fetch", "resize[0]", "resize[1]", "page")
    assert ran.states["resize"] == ran.states["resize[0]"] == "finished"
    assert [call.kwargs["photo"] for call in resize.call_args_list] == ["2026-10-a", "2026-10-b"]


@pytest.mark.parametrize("error", [OSError("no disk"), OSError])
def test_an_exception_that_replaces_a_job_is_raised_and_kept(error: Any) -> None:
    ran = run(SHOP, {"month": "x"}, replace={"fetch": error, "resize": 1, "page": 1})
    assert (ran.state, ran.states) == (
        "failed",
        {"fetch": "failed", "resize": "skipped", "page": "skipped"},
    )
    assert isinstance(ran.errors["fetch"], OSError)
    assert ran.order == ("fetch",)
    with pytest.raises(flowq.RunFailed, match="fetch") as raised:
        ran.check()
    assert raised.value.__cause__ is ran.errors["fetch"]


def test_one_item_of_a_group_is_replaced_by_its_own_name() -> None:
    ran = run(
        """
        jobs:
          each:
            for_each: [a, b]
            call: os.path:basename
            with: {p: "x/${{ item }}"}
            continue_on_error: true
          count:
            needs: [each]
            call: builtins:len
            with: {obj: "${{ jobs.each.results }}"}
        """,
        replace={"each[1]": ValueError("b"), "count": lambda obj: obj},
    )
    assert ran.results["count"] == ["a", None]
    assert ran.results["each"] == ["a", None]
    assert ran.states["each[1]"] == "failed"
    assert ran.state == "succeeded"


def test_a_command_is_run_or_replaced_by_what_gets_its_text(capfd: Any) -> None:
    text = """
    jobs:
      real: {run: "printf '%s' ${{ 'a b' }}"}
      fake: {run: "rm -rf ${{ jobs.real.result }}"}
      there: {run: "Get-Item a", shell: pwsh}
      list: {run: [deploy, "${{ jobs.real.result }}"]}
    """
    commands: list[str] = []
    note = commands.append
    ran = run(text, replace={"fake": note, "there": note, "list": lambda command: [command]})
    assert ran.results["real"] == "a b"
    assert ran.results["list"] == ["deploy 'a b'"]
    assert sorted(commands) == ["Get-Item a", "rm -rf 'a b'"]
    assert "a b" in capfd.readouterr().out


def test_delays_of_retries_are_skipped_and_every_attempt_is_in_the_order() -> None:
    text = """
    jobs:
      ask: {call: "shop:ask", retries: {max: 5, backoff: 1h, on: [OSError]}}
      never: {call: "shop:never", retries: {max: 5, backoff: 1h, on: [OSError]}}
    """
    ran = run(
        text,
        replace={"ask": fail_times(2, OSError("busy"), "yes"), "never": ValueError("no")},
    )
    assert ran.results == {"ask": "yes"}
    assert [*ran.order].count("ask") == 3
    assert [*ran.order].count("never") == 1
    assert ran.states == {"ask": "finished", "never": "failed"}


NESTED = """
inputs: {size: {default: 3}}
jobs:
  pack: {workflow: zip, with: {size: "${{ inputs.size }}"}, retries: {max: 2, backoff: 1h}}
  after: {call: "shop:after", with: {value: "${{ jobs.pack.result.name }}"}}
workflows:
  zip:
    inputs: {size: {type: int}, level: {type: int, default: 9}}
    jobs:
      list: {call: "shop:list", with: {size: "${{ inputs.size }}"}}
      each: {for_each: "${{ jobs.list.result }}", call: "shop:zip", with: {item: "${{ item }}"}}
    outputs: {name: "${{ jobs.each.results }}"}
"""


def test_jobs_inside_of_nested_workflows_have_dotted_names_and_rounds_need_no_time() -> None:
    ran = run(
        NESTED,
        replace={
            "pack.list": lambda size: [*range(size)],
            "pack.each": lambda item: item * 10,
            "pack.each[1]": fail_times(1, OSError("full"), 11),
            "after": lambda value: value,
        },
    )
    assert ran.check().results["after"] == [0, 11, 20]
    assert ran.states["pack.each[2]"] == "finished"
    assert_order(ran, "pack.list", "pack.each", "after")
    assert_order(ran, "pack", "after")


def test_a_nested_workflow_is_replaced_as_a_whole_and_gets_its_inputs() -> None:
    seen: list[dict[str, Any]] = []

    def pack(**inputs: Any) -> dict[str, str]:
        seen.append(inputs)
        return {"name": "all.zip"}

    ran = run(NESTED, replace={"pack": pack, "after": lambda value: value})
    assert ran.check().results == {"pack": {"name": "all.zip"}, "after": "all.zip"}
    assert seen == [{"size": 3, "level": 9}]
    assert ran.order == ("pack", "after")
    failed = run(NESTED, replace={"pack": OSError("x"), "after": 1})
    assert failed.states == {"pack": "failed", "after": "skipped"}
    assert failed.order == ("pack", "pack", "pack")


DEEP = """
defaults: {retries: 3}
jobs:
  a: {workflow: outer, with: {n: 1}}
  b: {workflow: outer, with: {n: 2}, needs: [a], for_each: [x, y]}
workflows:
  outer:
    inputs: {n: {type: int}}
    jobs: {inner: {workflow: deep, with: {n: "${{ inputs.n }}"}}}
    outputs: {n: "${{ jobs.inner.result.n }}"}
    workflows:
      deep:
        inputs: {n: {type: int}}
        jobs: {leaf: {call: "operator:neg", with: {a: "${{ inputs.n }}"}}}
        outputs: {n: "${{ jobs.leaf.result }}"}
"""


def test_a_workflow_in_a_workflow_is_replaced_in_one_place_and_not_in_another() -> None:
    ran = run(DEEP, replace={"a.inner": {"n": 7}, "b.inner.leaf": lambda a: a * 10})
    ran.check()
    assert ran.results["a"] == {"n": 7}
    assert ran.results["b"] == [{"n": 20}, {"n": 20}]
    assert ran.results["b[1].inner.leaf"] == 20
    ran = run(DEEP, replace={"a": {"n": 1}, "b": OSError("x")})
    assert ran.order == ("a", "b[0]", "b[1]")
    with pytest.raises(flowq.UsageError, match=r"replace b, or jobs inside of it"):
        run(DEEP, replace={"b[0]": 1})


APPROVED = """
jobs:
  deploy:
    approval: {message: "Really?", inputs: {window: {type: str}}}
    call: shop:deploy
    with: {window: "${{ approval.window }}"}
  tell: {call: "shop:tell", needs: [deploy], if: "always()"}
"""


@pytest.mark.parametrize(
    ("decision", "state", "states"),
    [
        ({"deploy": {"window": "night"}}, "succeeded", ("finished", "finished")),
        ({"deploy": "too risky"}, "failed", ("canceled", "finished")),
        ({"deploy": False}, "failed", ("canceled", "finished")),
        ({}, "waiting", ("deferred", "deferred")),
    ],
)
def test_the_test_decides_about_approvals(
    decision: dict[str, Any], state: str, states: tuple[str, str]
) -> None:
    replace = {"deploy": lambda window: window, "tell": 1}
    ran = run(APPROVED, replace=replace, approvals=decision)
    assert (ran.state, (ran.states["deploy"], ran.states["tell"])) == (state, states)
    assert ran.results.get("deploy") == ("night" if state == "succeeded" else None)


def test_a_name_that_the_workflow_does_not_have_is_refused_with_the_nearest() -> None:
    with pytest.raises(flowq.UsageError, match="no job fech; did you mean 'fetch'"):
        run(SHOP, {"month": "x"}, replace={"fech": 1})
    with pytest.raises(flowq.UsageError, match=r"approvals: workflow .* no job pack.lst"):
        run(NESTED, approvals={"pack.lst": True})
    with pytest.raises(flowq.UsageError, match="a workflow is a flowq"):
        run_inline(3)  # type: ignore[arg-type]


def test_functions_are_checked_before_the_run_except_those_of_replaced_jobs() -> None:
    text = """
    jobs:
      gone: {call: "no_such_module:f"}
      wrong: {call: "os.path:basename", with: {q: 1}}
    """
    with pytest.raises(flowq.WorkflowInvalid) as raised:
        run(text)
    assert len(raised.value.problems) == 3
    with pytest.raises(flowq.WorkflowInvalid) as raised:
        run(text, replace={"wrong": 1})
    assert [problem.where.line for problem in raised.value.problems if problem.where] == [3]
    assert run(text, replace={"wrong": 1, "gone": 2}).state == "succeeded"
    with pytest.raises(flowq.WorkflowInvalid, match="month"):
        run(SHOP, replace={"fetch": 1, "resize": 1, "page": 1})


def test_what_replaces_a_job_may_add_blockers_to_a_deferred_one() -> None:
    text = """
    jobs:
      scan: {call: "shop:scan", blocks: [page]}
      page: {call: "shop:page", deferred: true}
    """

    def scan() -> None:
        for photo in ("a/b", "c/d"):
            queue = flowq.Queue(connection=flowq.current_future().connection)
            queue.enqueue(os.path.basename, photo, blocked_by=flowq.current_future())

    ran = run(text, replace={"scan": scan, "page": "page"})
    assert ran.check().order[0] == "scan"
    assert ran.order[-1] == "page"
    assert len(ran.order) == 4


def test_secrets_come_from_the_environment_and_are_hidden(
    monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("TOKEN", "s3cret-token")
    text = """
    jobs:
      push: {run: "echo ${{ secrets.TOKEN }}"}
      call: {call: "shop:call", with: {token: "${{ secrets.TOKEN }}"}}
    """
    seen = Mock(return_value=None)
    ran = run(text, replace={"call": seen})
    ran.check()
    seen.assert_called_once_with(token="s3cret-token")
    assert "s3cret-token" not in capfd.readouterr().out
    assert "s3cret-token" not in str(ran.run.views(["push"]))


def test_variables_and_the_folder_are_those_of_the_test_again_afterwards() -> None:
    text = """
    jobs:
      who: {run: "echo $FLOWQ_JOB $FLOWQ_ATTEMPT $X", env: {X: "1"}}
      leave: {call: "os:chdir", with: {path: "/"}}
      where: {call: "os:getcwd", needs: [leave]}
    """
    before, folder = dict(os.environ), Path.cwd()
    ran = run(text)
    assert ran.results == {"who": "who 1 1", "leave": None, "where": str(folder)}
    assert dict(os.environ) == before
    assert Path.cwd() == folder


def test_a_declared_workflow_and_a_file_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = flowq.Workflow("shop", inputs={"n": 2})
    flow.call("double", "operator:mul", with_={"a": flow.inputs.n})
    ran = run_inline(flow, {"n": 4}, replace={"double": lambda a: a * 2})
    assert ran.results == {"double": 8}
    monkeypatch.chdir(ROOT / "workflows")
    ran = run_inline(Path("sandwich.yaml"))
    assert ran.check().order[-1] == "serve"
    assert ran.run.explain("serve").state == "finished"


def test_ctrl_c_in_a_job_ends_the_test_and_not_the_job() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(SHOP, {"month": "x"}, replace={"fetch": KeyboardInterrupt(), "resize": 1, "page": 1})


def test_a_wrong_order_is_told_with_the_order_that_was() -> None:
    ran = run(SHOP, {"month": "x"}, replace={"fetch": ["a"], "resize": 1, "page": 1})
    assert_order(ran, "fetch", "resize", "page")
    assert_order(ran, "fetch", "resize[0]", "page")
    with pytest.raises(AssertionError, match=r"order was fetch, resize\[0\], page"):
        assert_order(ran, "page", "fetch")
    with pytest.raises(AssertionError, match="no job pag; did you mean 'page'"):
        assert_order(ran, "pag")
    skipped = run(SHOP, {"month": "x"}, replace={"fetch": OSError, "resize": 1, "page": 1})
    with pytest.raises(AssertionError, match="page did not run: it is skipped"):
        assert_order(skipped, "fetch", "page")


def test_wait_until_returns_what_was_waited_for_and_fails_in_time() -> None:
    values = iter([0, "", "there"])
    assert wait_until(lambda: next(values)) == "there"
    with pytest.raises(AssertionError, match=r"did not become true within 0\.01 s"):
        wait_until(lambda: False, timeout=0.01)


def test_a_run_that_waits_or_was_rejected_fails_its_check_with_the_reason() -> None:
    replace = {"deploy": 1, "tell": 1}
    with pytest.raises(flowq.RunFailed, match="has not ended: deploy waits for approval") as waits:
        run(APPROVED, replace=replace).check()
    assert (waits.value.state, waits.value.jobs) == ("waiting", ())
    ran = run(APPROVED, replace=replace, approvals={"deploy": "too risky"})
    with pytest.raises(flowq.RunFailed, match=r"deploy \(rejected: too risky\)") as rejected:
        ran.check()
    assert (rejected.value.state, rejected.value.jobs) == ("failed", ("deploy",))


def test_what_decides_or_replaces_nothing_is_refused() -> None:
    two = {"fetch": ["a", "b"], "resize": 1, "page": 1}
    with pytest.raises(flowq.UsageError, match=r"resize had no item resize\[7\]; its items were "):
        run(SHOP, {"month": "x"}, replace={**two, "resize[7]": 1})
    with pytest.raises(flowq.UsageError, match=r"fetch is not a group; write fetch$"):
        run(SHOP, {"month": "x"}, replace={"fetch[7]": 1})
    with pytest.raises(flowq.UsageError, match="page does not ask for an approval; no job of this"):
        run(SHOP, {"month": "x"}, replace=two, approvals={"page": True})
    with pytest.raises(flowq.UsageError, match="approvals: deploy has 3; write True or a mapping"):
        run(APPROVED, approvals={"deploy": 3})
    failed = run(SHOP, {"month": "x"}, replace={**two, "fetch": OSError, "resize[7]": 1})
    assert failed.states["resize"] == "skipped"  # which items it would have had is not known
