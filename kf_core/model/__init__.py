"""Tensors in, tensors out: networks hold weights only. No file, no loop over time."""
