"""Searching: the trials of a search for settings: shared out, fitted, stopped early, gone on with after a kill."""
