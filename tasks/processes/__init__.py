"""Child processes that end with the run, and the servers that it launches."""
