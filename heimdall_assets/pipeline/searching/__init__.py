"""Searching: the trials of a search for settings: drawn, shared out, stopped early, freed after a kill."""
