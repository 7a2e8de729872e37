"""What a network is: rows, specs, the zoo, edits, text. Standard library and yaml only."""
