"""The paper's own: its printed tables and figures next to what is counted, measured and trained here."""
