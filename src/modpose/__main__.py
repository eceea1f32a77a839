"""``python -m modpose`` is ``modpose``."""

from modpose.cli import main

if __name__ == "__main__":
    main()
