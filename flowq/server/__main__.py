"""Run the guardian: `python -I -S …/flowq/server/__main__.py STATE BINARY …`, or another part.

Without `site` and its paths an interpreter starts in a third of the time, but then it does not
find flowq by itself. The folder goes to the end, so that nothing in it can hide a standard module.
"""

import sys

sys.path.append(__file__.rsplit("flowq", 1)[0])

if __name__ == "__main__":
    if sys.argv[1] in ("keeper", "fake"):
        from importlib import import_module

        sys.exit(import_module(f"flowq.server.{sys.argv[1]}").main(sys.argv[2:]))
    from flowq.server.guardian import main

    sys.exit(main(sys.argv[1:]))
