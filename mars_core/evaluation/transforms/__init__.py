"""Changes of a pair that keep its ranking: one file each."""
