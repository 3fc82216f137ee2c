"""Speed and memory, measured. Run one as `python -m benchmarks.NAME`; each prints the machine and its numbers."""
