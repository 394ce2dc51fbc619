"""The nouns that the API sends and receives: typed, frozen, no behaviour; one file per plane."""
