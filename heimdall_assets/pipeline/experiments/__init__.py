"""Experiments: what the run of a training is told in an experiment store: settings, data, environment, figures, files.

Belongs here: reading that off results at rest, and judging what no result holds. Does not belong here: the store
(``stores.experiments``), when it is told (``defs.tracking``). Nothing here is a result, and nothing depends on it.
"""
