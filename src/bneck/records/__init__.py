"""What a run wrote down: measurements, the trial ledger, the run folder. No torch."""
