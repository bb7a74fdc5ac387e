"""`python -m flowq.workers`: a worker. Importing this module starts nothing (spawn does it).

`launch.make_command` calls this file, so that flowq is the one of the command that started it. The
folder goes to the end of the path, so that nothing in it can hide another module.
"""

import sys

sys.path.append(__file__.rsplit("flowq", 1)[0])

from flowq.workers.launch import run_command

if __name__ == "__main__":
    sys.exit(run_command())
