"""Each module is one command: a `main` that reads from top to bottom."""
