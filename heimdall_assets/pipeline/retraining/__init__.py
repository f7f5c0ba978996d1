"""When to train again, and on which champion's settings."""
