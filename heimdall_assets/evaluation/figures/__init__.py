"""Figures: what is drawn of an evaluation, a training and a search, and the pages that hold it."""
