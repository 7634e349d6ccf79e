"""Entry point of the Space."""


def main() -> None:
    """Serve the page; the imports live here so that the worker process, which imports this file, stays light."""
    from hsemotion_space.cli import main as run

    raise SystemExit(run(["serve"]))


if __name__ == "__main__":
    main()
