"""Spec -> torch module; shrinking a trained net into a narrower spec; reading and writing weights."""
