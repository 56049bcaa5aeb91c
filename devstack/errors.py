"""The one error of the dev stack: a sentence for the person at the terminal, never a stack trace."""


class StackError(Exception):
    """Names the part, what was found, what was expected and what to do next."""
