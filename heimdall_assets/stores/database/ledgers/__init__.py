"""Ledgers: what was decided, released, signed, held and erased, in tables that only grow; and who did."""
