"""Locating: bounds and classical estimators of a transmitter's position. Nothing learned here."""
