"""Formats of preference data; one file each."""
