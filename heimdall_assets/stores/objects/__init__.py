"""Bytes at rest under their SHA-256 (content-addressed storage), and the tables and arrays packed into them."""
