"""Lists and counts as a sentence has them."""

LISTED = 4  # names in a list before "and N more"


def listed(names: list[str], limit: int = LISTED) -> str:
    """ "a", "a and b", "a, b and c", "a, b, c, d and 3 more"."""
    if len(names) > limit + 1:
        names = [*names[:limit], f"{len(names) - limit} more"]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
