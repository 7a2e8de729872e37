"""Classification: one class per image, scored by top-1."""
