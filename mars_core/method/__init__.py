"""The paper's steps: selection, semantics, rewriting, augmentation, and their baselines."""
