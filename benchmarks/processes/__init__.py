"""Braid's own programs as processes of their own, under the limits of a service, and what they cost."""
