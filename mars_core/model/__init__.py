"""Reward models: checkpoints, rendering, scoring."""
