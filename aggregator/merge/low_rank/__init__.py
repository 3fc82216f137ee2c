"""Matrices of low rank: sums that are not worked out, and their best approximations."""
