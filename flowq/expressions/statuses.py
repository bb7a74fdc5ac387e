"""Comparisons of a job's status with words: whether there is such a status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jinja2 import nodes

from flowq.expressions.refusals import Refused
from flowq.nearest import find_nearest
from flowq.problems import UNKNOWN_STATUS
from flowq.status import ENDED, RUN_ENDED

STATUSES = tuple(sorted(ENDED))
"""What `jobs.NAME.status` can be; an expression sees a job when it has ended."""

STATUSES_OF_RUN = tuple(sorted(RUN_ENDED))
"""What `run.status` can be for a job under `finally`."""

_STATUS_BY_FOREIGN = {
    **dict.fromkeys(("success", "succeeded", "successful", "ok", "passed"), "finished"),
    **dict.fromkeys(("done", "complete", "completed"), "finished"),
    **dict.fromkeys(("failure", "error", "errored", "broken"), "failed"),
    **dict.fromkeys(("cancelled", "aborted"), "canceled"),
    **dict.fromkeys(("timeout", "timed_out"), "failed"),
}
_EQUALITIES = frozenset({"eq", "ne"})


def find_unknown(
    node: nodes.Compare, statuses: Iterable[nodes.Node], *, is_of_run: bool = False
) -> Iterator[Refused]:
    """Yield a refusal for each word that no status is.

    `statuses` are the operands of the comparison that are a job's status, or that of the run.
    """
    known = STATUSES_OF_RUN if is_of_run else STATUSES
    of_jobs = set(map(id, statuses))
    left: nodes.Node = node.expr
    for operand in node.ops:
        right = operand.expr
        words: Iterable[nodes.Node] = ()
        if operand.op in _EQUALITIES:
            if id(left) in of_jobs:
                words = (right,)
            elif id(right) in of_jobs:
                words = (left,)
        elif id(left) in of_jobs and isinstance(right, nodes.List | nodes.Tuple):
            words = right.items
        for word in words:
            if isinstance(word, nodes.Const) and word.value not in (None, *known):
                yield _refuse(word.value, is_of_run=is_of_run)
        left = right


def _refuse(word: object, *, is_of_run: bool) -> Refused:
    known = _STATUS_BY_FOREIGN.get(str(word).lower())
    if is_of_run:
        known = "succeeded" if known == "finished" or word == "finished" else known
    statuses = STATUSES_OF_RUN if is_of_run else STATUSES
    known = known or find_nearest(str(word), statuses)
    whose, who = ("run.status", "run") if is_of_run else ("a job's status", "job")
    told = f"{whose} is one of {', '.join(statuses)}"
    hint = f"write {known!r}; {told}" if known else told
    return Refused(UNKNOWN_STATUS, f"no {who} has the status {word!r}", hint).about(f"'{word}'")
