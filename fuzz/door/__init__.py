"""A running server behind its own door, in the process of whoever sends it bytes."""
