"""Heimdall Assets: locating transmitters from a network of receivers, as a Dagster asset graph.

Five floors; each may use those named before it, never those after it:

1. words     ``domain`` ``physical`` ``fields`` ``session_set`` ``specs`` ``search_space`` ``profiles``
             ``training_tables`` ``other_names`` ``suggestions`` ``kinds`` ``things`` ``merkle`` ``manifests``
             ``envelopes`` ``people`` ``counts`` ``errors`` ``libraries`` ``serving_rules``: names,
             what decides a result or an answer.
2. work      ``signals`` ``locating`` ``simulation`` ``learning`` ``evaluation`` ``formats`` ``tables`` ``lineage``:
             one thing from another, in memory.
3. world     ``stores``: where bytes and rows rest; the only floor that changes files; knows words only.
4. pipeline  ``inference`` ``pipeline``: a released model that answers by itself; which result is made from which,
             found again by its cache key; names no orchestrator.
5. graph     ``defs`` ``definitions`` ``dagster_home`` ``places`` ``variables`` ``variable_kinds`` ``web`` ``serving``
             ``running`` ``api`` ``cli``: when, from what, how; the only floor that names Dagster.

This package imports nothing, so importing it costs nothing.
"""
