"""Heimdall Assets: locating transmitters from a network of receivers, as a Dagster asset graph.

Four floors; each may use those named before it, never those after it:

1. words  ``domain`` ``specs`` ``manifests`` ``errors``: names, and the numbers that decide a result.
2. work   ``signals`` ``locating`` ``simulation`` ``learning`` ``lineage``: one thing from another, in memory.
3. world  ``stores``: the only floor that touches disk, network or clock.
4. graph  ``defs`` ``definitions`` ``places`` ``cli``: when, from what, how; the only floor that names Dagster.

This package imports nothing, so importing it costs nothing.
"""
