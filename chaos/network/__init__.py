"""Faults of the way between a board and its server: a proxy that does to requests and answers what bad lines do."""
