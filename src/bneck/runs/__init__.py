"""What the commands do, written once over a `Task`: train, evaluate, predict, export, measure, search."""
