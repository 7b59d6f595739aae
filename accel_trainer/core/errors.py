"""Errors that are meant for people: what is wrong, where, and how to fix it."""


class UserError(Exception):
    """A mistake the user can mend. Its text is shown as it is, without a traceback.

    `problems` has one line for each mistake; `str(error)` joins them.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)
