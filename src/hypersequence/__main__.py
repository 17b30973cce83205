"""``python -m hypersequence`` is ``hsq``."""

from .cli import main

if __name__ == "__main__":
    main()
