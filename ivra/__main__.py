"""``python -m ivra``, for launchers that want a module."""

from ivra.cli.main import main

if __name__ == "__main__":
    main(prog_name="ivra")
