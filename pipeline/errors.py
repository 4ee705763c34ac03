"""The exception whose message is for the user."""


class InputError(Exception):
    """An error in the input: a file, a row, a parameter.

    The message is one line, or a short list of lines: the file, the key or row, the value, and what to do. A stage prints it without a
    traceback and exits with code 2.
    """
