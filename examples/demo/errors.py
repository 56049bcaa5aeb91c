"""The one error of the demo: a sentence for the person at the terminal, never a stack trace."""


class DemoError(Exception):
    """Names the step or part, what was found and what was expected."""
