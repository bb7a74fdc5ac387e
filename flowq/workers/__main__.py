"""`python -m flowq.workers`: a worker. Importing this module starts nothing (spawn does it)."""

import sys

from flowq.workers.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command())
