"""`bneck ship`: the files of a trained network, judged and timed, and the one to ship."""
