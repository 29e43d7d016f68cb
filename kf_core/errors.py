"""The error that is written for the person at the screen."""


class KnotForcingError(Exception):
    """Something the user can put right. The message says what was found, what is needed and what to do."""
