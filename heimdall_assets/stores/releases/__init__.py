"""Releases at rest: one immutable folder a version, numbered by the database."""
