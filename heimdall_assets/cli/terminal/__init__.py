"""The terminal: what is written on it, what is shown while somebody waits, what its signals do, which home is open."""
