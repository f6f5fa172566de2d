"""`python -m sciode` is the command `sciode`."""

from sciode.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
