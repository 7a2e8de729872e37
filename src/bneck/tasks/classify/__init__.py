"""Classification: how it is scored."""
