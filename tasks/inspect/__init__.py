"""Looking at runs and ahead of them: lineage, export, estimate."""
