"""Wan 2.1's picture codec: pictures to latents and back, streamed with explicit state."""
