"""What trains any model: optimiser, moving average, mixed precision, random numbers by name."""
