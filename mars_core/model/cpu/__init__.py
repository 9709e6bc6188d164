"""What makes networks fast on a CPU; the numbers stay the same to rounding."""
