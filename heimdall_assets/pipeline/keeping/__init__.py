"""Keeping: what of a home must stay, what nobody needs any more, and what is erased because somebody asked for that."""
