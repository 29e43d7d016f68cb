"""A stream as a recipe, and the session that runs it: state, latent log, executor, sinks."""
