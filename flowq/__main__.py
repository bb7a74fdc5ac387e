"""The command line, as `flowq` and as `python -m flowq`."""

import signal


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, even while it is imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored, as with nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from flowq.cli.main import main as run  # noqa: PLC0415 - after that

    run()


if __name__ == "__main__":  # children that `flowq worker` spawns import this module too
    main()
