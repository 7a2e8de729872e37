"""What a spec costs: exact counts, and estimates from a measured latency table. No torch."""
