"""`python -m flowq.workers`: run a worker. Importing this module starts nothing (spawn imports it).

`launch.make_command` runs this file by its path, so that the worker uses the same copy of flowq as
the command that starts it. Its folder goes to the end of `sys.path`, so that no file in it can
hide another module.
"""

import sys

sys.path.append(__file__.rsplit("flowq", 1)[0])

if __name__ == "__main__":  # a spawned child imports this module too, and no supervisor
    from flowq.workers.launch import run_command

    sys.exit(run_command())
