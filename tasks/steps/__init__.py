"""The steps of a run; one file for each."""
