"""Generator backends, which write the texts; one file for each."""
