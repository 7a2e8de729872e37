"""Source weights of other projects, as networks of this one: one file a source format."""
