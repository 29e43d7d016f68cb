"""Protocols that measure a model on faces and voices whose truth is known."""
