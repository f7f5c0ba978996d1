"""Handing in: what people import or have inspected, and how they say what their files are."""
