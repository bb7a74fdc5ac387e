"""Sets Django up where it is imported, which is in the children of a worker, before any job."""

from __future__ import annotations

import django

django.setup()
