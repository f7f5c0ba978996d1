"""Training: commands that choose, start, watch and judge trainings."""
