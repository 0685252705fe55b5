"""`python -m ubend` and the command `ubend`."""


def main() -> None:
    """Run the command line."""
    from ubend.faces.cli import run

    run()


if __name__ == "__main__":
    main()
