"""Complete runs: which settings, in which order. The only place where the parts meet."""
