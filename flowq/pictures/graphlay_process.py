"""Lay out the graph on stdin with graphlay: a program of its own, which can be ended.

`flowq.pictures.layout` starts this file, without flowq, so it imports nothing of it. A missing
graphlay is an exit code like any other failure.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

CPU_LIMIT_S = 2
"""It is CPU time that counts, or a busy machine would draw another picture than an idle one."""


def main() -> None:
    """Read a graph with options as JSON, and write the layout as JSON, if it is a good one."""
    with suppress(ImportError, ValueError, OSError):  # Windows; a lower limit of the caller
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    import graphlay  # noqa: PLC0415 - importing this file must not load it

    request = json.load(sys.stdin)
    layout = graphlay.layout(request["graph"], options=request["options"])
    faults = layout.metrics()
    if faults["node_overlaps"] or faults["node_edge_hits"] or faults["unrouted_edges"]:
        raise SystemExit("boxes overlap, or a line runs through one")
    sys.stdout.write(layout.to_json())


if __name__ == "__main__":
    main()
