"""Code that runs only in a worker's child processes."""

_is_child = False


def mark_process() -> None:
    """Note that this process is a child, which executes jobs."""
    global _is_child  # noqa: PLW0603 - one fact about the process
    _is_child = True


def is_child() -> bool:
    """Whether this process executes jobs, also while it imports a module of theirs."""
    return _is_child
