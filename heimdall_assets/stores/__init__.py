"""Stores: where bytes and rows rest; the only floor that changes files, and below graph the only one that asks the
network or the clock.
"""
