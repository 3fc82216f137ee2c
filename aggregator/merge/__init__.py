"""How updates become the next version of the adapter. Pure functions on numpy arrays, one file per rule."""
