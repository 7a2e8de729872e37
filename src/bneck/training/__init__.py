"""How a net learns: optimiser, schedule, weight average, the loop, checkpoints."""
