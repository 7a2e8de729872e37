"""A task from outside of bneck: one number per image, as a level is read from a gauge."""
