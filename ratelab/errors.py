"""The one error that a person's input can cause."""


class InputError(ValueError):
    """What was given cannot be used; the message states the value, the rule and the remedy."""
