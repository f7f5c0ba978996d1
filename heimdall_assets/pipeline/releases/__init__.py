"""What happens to released models: promotion, audit, repair, reproduction, comparison."""
