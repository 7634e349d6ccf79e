"""Entry point of the Space."""


def main() -> None:
    """Serve the page; the imports live here so that the worker process, which imports this file, stays light."""
    from hsemotion_space.settings import Settings
    from hsemotion_space.ui.app import launch

    launch(Settings.from_env())


if __name__ == "__main__":
    main()
