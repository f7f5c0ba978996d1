"""Migrations: how a database of any age becomes one of today; run by ``connection.upgrade_database``."""
