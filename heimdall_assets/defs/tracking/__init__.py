"""Tracking: one MLflow run for each training that is really computed, which the steps after it tell of what they made.

Belongs here: when MLflow is told, and that a store which is away costs one warning and never a training. Does not
belong here: what it is told (``pipeline.experiments``), telling it (``stores.experiments``).
"""
