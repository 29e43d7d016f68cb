"""What fits into a machine's memory: computed on the meta device, decided by presets."""
