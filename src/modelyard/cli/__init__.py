"""The command line: one file per noun, over the SDK only."""
