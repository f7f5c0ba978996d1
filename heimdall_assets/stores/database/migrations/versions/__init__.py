"""One file a step, each frozen once released."""
