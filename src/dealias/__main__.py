"""`python -m dealias` is the command line."""

from dealias.cli import main

main()
