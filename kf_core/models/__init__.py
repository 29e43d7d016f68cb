"""Wan's modules, the causal forward over segments, the cache. No file, no loop over time."""
