"""Open files: every connection is one, and the usual limit of 1,024 is soon reached."""

import resource


def allow_many_files() -> int:
    """Raise this process's limit of open files as far as it may itself; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
