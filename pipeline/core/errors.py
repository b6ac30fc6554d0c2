"""The one exception that a user's input may cause."""


class UserError(Exception):
    """Something the user can put right: one line saying what is wrong, where, and what to do (exit status 2)."""
