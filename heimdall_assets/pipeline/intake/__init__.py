"""How recordings, levels and simulated sessions come into the stores."""
