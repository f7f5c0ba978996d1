"""Learning: splits, models, fitting, export. torch is imported here and nowhere else."""
