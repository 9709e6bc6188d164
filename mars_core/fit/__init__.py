"""Training a reward model on preference pairs, in a process of its own."""
