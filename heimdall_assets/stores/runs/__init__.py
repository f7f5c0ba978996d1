"""Folders of trainings: one a training, readable while it grows."""
