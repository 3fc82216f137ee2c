"""Real processes, faults by seed, and a count of what was lost: `python -m chaos` (docs/develop/chaos.md)."""
