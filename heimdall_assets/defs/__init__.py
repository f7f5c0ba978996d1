"""Defs: assets, checks, jobs, sensors and resources of the graph. Each asset body wires work to stores, no more."""
