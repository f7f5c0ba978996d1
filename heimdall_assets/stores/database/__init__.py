"""Rows at rest: SQLite or PostgreSQL, their schema, their migrations, and what may become a row."""
