"""A program in the place of a worker, which ends at once."""

import sys

sys.exit(print("no memory for a worker", flush=True) or 3)
