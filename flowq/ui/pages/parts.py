"""What the pages of a run share: where the name of a job leads, and what hints say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from flowq.pictures.folding import without_items
from flowq.runtime.explain import PLAIN
from flowq.ui.looks import segment
from flowq.ui.pages.inside import split_name
from flowq.ui.reading import Seen, StillCounting
from flowq.ui.site import reads_a_whole_run, site_of


class PageCommands:
    """Writes hints for readers who have a page: what commands show, a page does."""

    def hint(self, words: str, *names: str) -> str:
        """Return the page to look at, or a command."""
        if words in ("show", "explain"):
            return f"the page of {'/'.join(names)}"  # which is shown as a link
        return PLAIN.hint(words, *names)

    def rq_hint(self, words: str, *names: str) -> str:
        """Return a command of RQ."""
        return PLAIN.rq_hint(words, *names)


COMMANDS = PageCommands()


def find_target(seen: Seen, root: str, name: str) -> str:
    """Return the URL of the page of a declaration, `deploy.build`, or of a job, `page[3]`.

    A job inside of the items of a group, `page.link`, leads to the page of all of them. "" for a
    job that does not exist yet.
    """
    run_id = segment(seen.run.run_id)
    if name in seen.status.jobs and name not in seen.status.groups:
        return f"{root}/runs/{run_id}/jobs/{segment(name)}"
    parts, is_many = seen.tally.parts, False
    for each in split_name(name):
        part = parts.get(without_items(each))
        if part is None:
            return ""
        is_many = is_many or (part.is_group and not each.endswith("]"))
        parts = part.parts
    return f"{root}/runs/{run_id}/groups/{segment(name)}" if is_many else ""


def when_counted(show: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Make a page of a run say that its events are counted, and load itself again, meanwhile."""

    @reads_a_whole_run
    def handle(request: Request) -> Response:
        try:
            return show(request)
        except StillCounting as counting:
            record, events = counting.record, counting.events
            return site_of(request).render(request, "counting.html", record=record, events=events)

    return handle
