"""The micro-benchmark of one board: what a training step costs in seconds, FLOPs, memory, energy and bytes."""
