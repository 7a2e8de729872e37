"""How a net ships: fold, convert, and check the file against the module."""
