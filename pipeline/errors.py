"""The one exception that a user is meant to read."""


class InputError(Exception):
    """Something in the input must be mended: a file, a row, a parameter.

    The message is one line (or a short list of lines) for the person who must mend it: file, key or row, value, what to do.
    A stage prints it without a traceback and exits with code 2.
    """
