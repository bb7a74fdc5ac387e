"""Sets Django up where it is imported, which is in the children of a worker, before any job.

With `--mode fork` that is the process that forks for each job, so it keeps no connection open.
"""

from __future__ import annotations

import django
from django.db import connections

django.setup()
connections.close_all()  # those that the application has opened: jobs would share them
