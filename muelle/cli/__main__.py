"""``python -m muelle.cli``, for where the console script is not on the path."""

from muelle.cli import main

if __name__ == "__main__":
    main(prog_name="muelle")
