"""The command `priorflow`: its job is done by a warm process if there is one, else by this."""

__all__ = ["main"]

import sys

from priorflow.warm import ask


def main() -> None:
    """Run the command line."""
    code = ask()
    if code is not None:
        sys.exit(code)
    from priorflow import cli

    cli.main()


if __name__ == "__main__":
    main()
