"""Preference pairs: where they come from, what makes one valid, how they are divided; the built-in data."""
