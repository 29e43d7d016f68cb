"""Knot Forcing, without ComfyUI: one portrait and a driving signal become video for as long as anyone asks.

Read `sampling/rollout.py` first; everything else is a detail of one line of it. Method: arXiv 2512.21734.
"""

__version__ = "0.1.0"
