"""A search, for every task: the latency table, the trials in worker processes, the final trainings."""
