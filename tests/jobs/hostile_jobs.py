"""Jobs that send their supervisor what is no report."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path
from typing import Any

from flowq.workers.child.main import Outbox


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def _find_channel() -> Any:
    (outbox,) = (each for each in gc.get_objects() if type(each) is Outbox)
    return outbox._channel


def send_pickle(path: str) -> None:
    """Send a pickle that makes a file, as a message of its own."""
    _find_channel().send_bytes(pickle.dumps(("ends", [Bomb(path)])))


def send_length(count: int) -> None:
    """Announce a message of that many bytes."""
    os.write(_find_channel().fileno(), b"\xff\xff\xff\xff" + count.to_bytes(8, "big") + b"x")


def keep_pickle(path: str) -> None:
    """Write a pickle where reports are kept, and die."""
    (outbox,) = (each for each in gc.get_objects() if type(each) is Outbox)
    outbox._shared.keep(pickle.dumps(Bomb(path)))
    os._exit(7)


def nothing() -> int:
    """Be a good neighbour."""
    return 1
