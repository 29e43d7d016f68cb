"""The laboratory: makes the data and the weights of the bundled model. Not part of the pack, nor of its wheel; see README.md."""
