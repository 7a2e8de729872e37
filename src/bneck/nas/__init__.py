"""Which spec next. A search never trains, times or builds; it is handed `judge` and `estimate`."""
