"""The folder of a comparison and its cells."""
