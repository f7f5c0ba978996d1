"""Fitting a model by gradient descent: the loop, its checkpoints, the environment that decides its bits."""
