"""Decorated functions: called they are what they were; `.enqueue`, `.open` and `.map` make jobs.

    @flowq.job(timeout="30s", retries=3)
    def thumbnail(path, size): ...

    @flowq.deferred(queue="pages")
    def build_page(title): ...

    with build_page.open(title="Holidays") as page:
        for path in find_photos():
            thumbnail.enqueue(path, size=256, blocks=page)

The options of the decorator are the defaults of every call. A keyword of `.enqueue`, `.open` and
`.map` that is the name of an option is that option, unless the function has a parameter of that
name: then it is the function's, and the option is said as `.options(queue="b").enqueue(…)`.

Redis and RQ are imported by the first call that needs them, not with this package: every
spawned child imports the user's module, and with it this one.
"""

from flowq.functions.calls import JobCall, JobFunction, deferred, job
from flowq.functions.connections import connect, get_connection
from flowq.functions.options import Options

__all__ = [
    "JobCall",
    "JobFunction",
    "Options",
    "connect",
    "deferred",
    "get_connection",
    "job",
]
