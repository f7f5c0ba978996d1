"""Migrations: how a database of any age becomes one of today; run by ``connection.Database.upgrade``."""
