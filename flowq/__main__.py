"""`python -m flowq`: the command line."""

if __name__ == "__main__":  # children that `flowq worker` spawns import this module too
    from flowq.cli.main import main

    main()
