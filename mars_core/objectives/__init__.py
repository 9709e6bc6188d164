"""What a reward model is trained to minimise, and what its outputs then mean; one file for each objective."""
