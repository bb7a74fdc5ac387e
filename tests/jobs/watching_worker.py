"""A worker in a script that brings Sentry's SDK before it, or is run by ddtrace-run.

python watching_worker.py URL MODE: works off the default queue, and ends.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if os.environ.get("TEST_DSN"):
    import sentry_sdk

    sentry_sdk.init(dsn=os.environ["TEST_DSN"], traces_sample_rate=1.0)

if __name__ == "__main__":
    from flowq.server.connection import make_client
    from flowq.workers import Worker

    url, mode = sys.argv[1:]
    worker = Worker(
        ["default"], connection=make_client(url), mode=mode, paths=[str(Path(__file__).parent)]
    )
    worker.work(burst=True)
