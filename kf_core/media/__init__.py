"""Frames, sound and video, in and out: blocks in, fragments out, written while they are made."""
