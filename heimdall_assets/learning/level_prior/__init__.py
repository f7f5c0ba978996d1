"""The level prior: what received levels say of the position, learned from the training sessions."""
