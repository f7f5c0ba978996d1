"""Training: commands about how models are fitted: searches for settings."""
