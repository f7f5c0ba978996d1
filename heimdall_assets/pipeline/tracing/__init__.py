"""The index of lineage kept whole, and what is asked of it: what was made from what, and what used what."""
