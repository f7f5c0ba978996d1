"""Migrations: how a database of any age becomes one of today; run by ``stores.database.upgrade_database``."""
