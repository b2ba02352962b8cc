"""`python -m pocketlens` is the command `pocketlens`."""

from pocketlens.cli import main

main()
