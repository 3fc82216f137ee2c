"""What learning from rewards does to a fleet: its rewards on contexts that it has not seen, and what they cost."""
