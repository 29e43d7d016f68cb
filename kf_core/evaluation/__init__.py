"""Measures of a video, one file each, and a report of them all."""
