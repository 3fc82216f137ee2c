"""The board: probe, plan, train, talk, survive a power cut."""
