"""Measures that nodes and command line report; one measure a file."""
