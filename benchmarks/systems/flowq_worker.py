"""A worker of flowq: `python flowq_worker.py '{"mode": "warm", "concurrency": 2}'`.

`python -m flowq.workers` starts the same, but has no option to hand over one job at a time.
"""

import json
import os
import sys
from pathlib import Path

from flowq.workers import main

if __name__ == "__main__":
    folder = str(Path(__file__).parent)
    options = json.loads(sys.argv[1])
    main(url=os.environ["BENCHMARK_URL"], paths=[folder], quiet=True, **options)
