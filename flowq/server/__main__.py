"""Run the guardian: `python … flowq/server/__main__.py STATE BINARY …`, or `… fake SETTINGS`.

Without `site` (`-I -S`) an interpreter starts in a third of the time, but does not find flowq. So
this adds flowq's folder to the end of the path, where it cannot hide a standard module.
"""

import sys

sys.path.append(__file__.rsplit("flowq", 1)[0])

if __name__ == "__main__":
    if sys.argv[1] in ("fake", "stopgap"):  # a guardian of an older version says stopgap
        from flowq.server.fake import main
    else:
        from flowq.server.guardian import main

    sys.exit(main(sys.argv[1:]))
