"""The bar that a base must clear before it ships: writing, copying, and what a federation makes of it."""
