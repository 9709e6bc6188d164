"""A run: its folder, the records of its steps, its progress, and its artifacts in Prefect."""
