"""Tables, pictures and the page of a run, from its records alone. No torch."""
