"""Faults of a process's disk: calls on its files that fail, and at which it is killed."""
