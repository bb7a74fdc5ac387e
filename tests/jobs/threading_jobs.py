"""A module that starts a thread when it is imported, as many libraries do."""

import os
import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()


def get_pid() -> int:
    """Tell the process."""
    return os.getpid()
