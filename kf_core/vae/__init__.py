"""Wan 2.1's video autoencoder: frames to latents and back, streamed with explicit state."""
