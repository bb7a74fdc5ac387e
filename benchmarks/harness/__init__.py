"""What the benchmarks measure with: a server, processes, clocks, and tables."""
