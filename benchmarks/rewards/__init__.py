"""The worth of learning from rewards: their means on contexts that no board has seen, and what they cost."""
