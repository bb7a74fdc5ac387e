"""`python -m flowq`: the command line."""

from flowq.cli.main import main

if __name__ == "__main__":
    main()
