"""Simulation: sessions with known truth and known physics, from seeds."""
