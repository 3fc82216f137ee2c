"""Federations in one process: the client's jobs on one side, the server's merge on the other, and no network."""
