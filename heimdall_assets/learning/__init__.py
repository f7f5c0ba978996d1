"""Learning: splits, models, training, evaluation, export. torch lives here and nowhere before."""
