"""The cost of Braid while it has nothing to do, and of a round beside its training."""
