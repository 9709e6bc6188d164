"""Who writes the texts; one file a backend."""
