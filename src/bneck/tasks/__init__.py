"""What networks are made to do: one folder per task, over one contract."""
