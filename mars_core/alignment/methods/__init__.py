"""Alignment methods that train a policy: one file each."""
