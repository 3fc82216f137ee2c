"""Bases from the Hugging Face hub, or from a mirror of it: named, fetched into the hub's own cache, and pinned."""
