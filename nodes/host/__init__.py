"""Where ComfyUI begins: its folders, models, memory, progress. Outside this folder only its schema of nodes (comfy_api) is known."""
