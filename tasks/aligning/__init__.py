"""What a reward model does to a policy, at work: judging."""
