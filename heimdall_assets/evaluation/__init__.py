"""How good a model is, beside every baseline and the bound: metrics, comparison, figures, card. No torch here."""
