"""Where ComfyUI begins: its folders, models, memory, progress. Nothing outside this folder imports the host, but for its schema of nodes.

Source: design facts and versions in each file; kf_core knows none of this.
"""
