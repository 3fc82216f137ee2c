"""The worth of strands of a board's own, by six methods, beside the fleet alone, on text that boards do not share."""
