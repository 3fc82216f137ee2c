"""What a board's training costs the other boards, with and without `train.keep`."""
