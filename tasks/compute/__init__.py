"""Where work runs; one file a place."""
