"""The command line: animate, inspect, evaluate, bench. A file each; nothing here that a node could not do too."""
