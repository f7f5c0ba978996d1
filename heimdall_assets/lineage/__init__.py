"""Lineage: what a model came from, whether the bytes still agree, and how it reads to a person."""
