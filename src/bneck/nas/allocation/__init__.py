"""Widths and rows of a network that meets a latency, by the importance of what is cut away."""
