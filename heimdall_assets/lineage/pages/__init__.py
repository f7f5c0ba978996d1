"""Pages: a release and what it was made of, for a browser: one file that opens offline, or in parts as it is served."""
