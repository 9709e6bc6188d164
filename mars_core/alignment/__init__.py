"""What a reward model does to a policy: judgements of its responses, and win rates."""
