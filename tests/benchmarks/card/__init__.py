"""The whole benchmark of a graphics card by one command, and the same at tiny sizes on a CPU: `python -m tests.benchmarks.card`."""
