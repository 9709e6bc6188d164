"""Paraphrases and rewrites by rule: the material of the backend `rules`."""
