"""Selection strategies; one file for each."""
