"""Stored sessions and loose files located, predicted and judged outside the graph, on the same code as its assets."""
