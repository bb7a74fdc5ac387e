"""What the pages of a run share: where the name of a job leads, and what hints say."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from flowq.runtime.explain import PLAIN
from flowq.ui.looks import segment
from flowq.ui.reading import Seen, StillCounting
from flowq.ui.site import site_of


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

    What is inside of the items of a group leads to the group. "" for a job that does not exist yet.
    """
    run_id = segment(seen.run.run_id)
    parts, path = seen.tally.parts, ""
    for each in name.split("."):
        path = f"{path}.{each}" if path else each
        part = parts.get(each)
        if part is None:
            break
        if part.is_group:
            return f"{root}/runs/{run_id}/groups/{segment(path)}"
        parts = part.parts
    return f"{root}/runs/{run_id}/jobs/{segment(name)}" if name in seen.status.jobs else ""


def when_counted(show: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Make a page of a run say that its events are counted, and load itself again, meanwhile."""

    def handle(request: Request) -> Response:
        try:
            return show(request)
        except StillCounting as counting:
            record, events = counting.record, counting.events
            return site_of(request).render(request, "counting.html", record=record, events=events)

    return handle
