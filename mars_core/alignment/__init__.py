"""What a reward model does to a policy: its responses judged, and win rates."""
