"""A run: its folder, its steps' records, its progress, and what it shows in Prefect."""
