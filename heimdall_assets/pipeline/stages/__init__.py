"""One file an asset, with the asset's name: what its result is made of."""
