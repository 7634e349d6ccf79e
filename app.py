"""Entry point of the Space."""

import sys


def main() -> int:
    """Serve the page as the command does; imported here, so that the worker process stays light."""
    from hsemotion_space.cli import main as run

    return run(["serve"])


if __name__ == "__main__":
    sys.exit(main())
