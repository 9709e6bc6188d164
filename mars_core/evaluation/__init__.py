"""What a reward model is measured on, the statistics of it, and what could fool them."""
