"""The worth of strands of a board's own: six methods, keeping, and the fleet alone, on text that boards do not share."""
