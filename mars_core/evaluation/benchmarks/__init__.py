"""Public benchmarks; one file each."""
