"""Merging that bad boards cannot steer alone: a file per defence, each a pure function of a round's contributions."""
