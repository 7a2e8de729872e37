"""Runtimes and places, the timing protocol, and filling a latency table by measuring."""
