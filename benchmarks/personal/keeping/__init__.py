"""The cost of a board's training to the other boards, with and without `train.keep`."""
