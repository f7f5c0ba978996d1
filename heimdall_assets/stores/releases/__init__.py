"""Releases at rest: immutable files of each version, in a folder or a bucket, numbered by the database."""
