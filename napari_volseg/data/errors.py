"""The one error that is the user's to mend, as opposed to a defect of the program."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and what to do about it.

    The command line prints it as one line and exits with 2; the window shows it as a
    notification. It is never raised for a defect of the program itself.
    """
