"""What Braid costs while it has nothing to do, and what a round costs beside its training."""
