"""How updates become the next version of the adapter: pure functions on numpy arrays, a file per rule (see `rules`)."""
