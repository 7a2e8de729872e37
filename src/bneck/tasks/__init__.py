"""What a net is for: loss, metric and decoding, wrapped round a net that knows none of it."""
