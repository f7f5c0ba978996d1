"""Defs: assets, checks, jobs, sensors and resources of the graph. Each asset body wires work to stores, no more.

What an asset does is imported in its body: the graph is listed far more often than it runs (each step's process, each
page, each command loads it), and must not wait for pandas, databases or a learning framework.
"""
