"""Stores: where bytes and rows rest; the only floor that touches disk, network or clock."""
