"""Compute backends, where texts are scored; one file for each."""
