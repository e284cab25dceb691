"""The beginning of the command: processes that train together connect before anything computes with JAX.

That has to come before the command line is imported, since gymnax computes while it is.
"""

import sys
import time

BEGAN = time.monotonic()
"""When the command began, before anything that takes long is imported or waited for."""


def main() -> int:
    """Connect, where ``train --distributed`` says so, and run the command."""
    if sys.argv[1:2] == ["train"] and "--distributed" in sys.argv:
        from s5_adapters.purejax.one_line import tell_in_one_line

        tell_in_one_line()
        from s5_adapters.purejax import processes

        try:
            processes.start(*(_value_of(option) for option in processes.OPTIONS))
        except ValueError as error:
            print(f"s5-adapters: {error}", file=sys.stderr)
            return 2
    from s5_adapters import cli

    cli.Train.began = BEGAN
    return cli.main()


def _value_of(option: str) -> str | None:
    for i, argument in enumerate(sys.argv):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else next(iter(sys.argv[i + 1 :]), None)
    return None


if __name__ == "__main__":
    sys.exit(main())
