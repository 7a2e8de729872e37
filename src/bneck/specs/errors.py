"""The one kind of error that is the user's to mend."""


class InputError(ValueError):
    """Wrong input. The message is one sentence: what came, what is allowed, what to do.

    The command line prints it and ends with exit code 2; Python callers may catch it as a
    ValueError.
    """


class RefusedElsewhere(InputError):
    """Another process of the same training refused; it says why, and this one only ends."""
