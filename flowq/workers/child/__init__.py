"""Code that runs only in a worker's child processes."""
