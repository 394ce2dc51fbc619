"""`python -m modelyard` is the command line."""

from modelyard.cli.main import main

main()
