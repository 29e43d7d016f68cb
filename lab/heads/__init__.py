"""Rendered talking heads: people made of CC0 shapes, painted, lit and drawn by our own rasteriser. See pack.py for the data's licence."""
