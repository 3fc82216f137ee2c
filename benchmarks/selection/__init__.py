"""Scores that choose strands, compared at equal numbers of trained parameters."""
