"""Suites of benchmarks by name: the keys of `mars evaluate` that each sets."""
