"""Commands on trainings: how they went, and with which settings."""
