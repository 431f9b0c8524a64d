"""One reader for each kind of source."""
