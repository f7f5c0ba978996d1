"""Trainings beside the recipe: where one starts from, and what several of one setting say together."""
