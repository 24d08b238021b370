"""The one exception that stands for bad input."""


class InputError(Exception):
    """What the user gave cannot be used: the message says what, where and what to do, in one line.

    The command line prints the message alone and exits with code 2. Any other exception that
    reaches the terminal is a bug in unitweave.
    """
