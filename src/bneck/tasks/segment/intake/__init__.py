"""Which mask is whose, and what the values in masks mean."""
