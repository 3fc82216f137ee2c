"""The server: rounds, merging, store. Never torch."""
