"""Measurements of speed, memory, bytes and learning. Each room is run as `python -m benchmarks.ROOM`.

A run prints its machine and its numbers; `--help` says what it measures, and `--quick` tries it out in a minute or few.
"""
