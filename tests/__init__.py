"""The tests of flowq. Helpers are imported by package: `from tests.runtime.language import job`.

`tests/jobs` is no package: its modules are what jobs run, imported by their bare names by tests and
workers alike, as a user's are. pytest has that folder on its path; workers get it as `JOBS_FOLDER`.
"""

from pathlib import Path

JOBS_FOLDER = str(Path(__file__).parent / "jobs")
"""The folder of the modules that jobs run, for the path of a worker."""
