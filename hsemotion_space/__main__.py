"""``python -m hsemotion_space``."""

from hsemotion_space.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
