"""GPUs in somebody's hands, and GPUs that nobody gave back."""

from throttllem_env.gpu.guardian import StateFolder, default_folder, leftovers
from throttllem_env.gpu.guardian.leftovers import Leftover
from throttllem_env.live.doctor.findings import Finding, Verdict

SUBJECT = "guardian"
RESET = ("throttllem doctor --reset",)


def examine_books() -> list[Finding]:
    """Look into the guardians' journal; touches no GPU."""
    path = default_folder()
    if not path.exists() and not path.is_symlink():
        return [Finding(SUBJECT, Verdict.GOOD, "no GPU's clock is held by us")]
    try:
        state = StateFolder(path)
    except OSError as error:
        return [Finding(SUBJECT, Verdict.PROBLEM, str(error))]
    try:
        found = [_judge(left) for left in leftovers.find(state)]
    except OSError as error:
        found = [Finding(SUBJECT, Verdict.PROBLEM, str(error))]
    finally:
        state.close()
    return found or [Finding(SUBJECT, Verdict.GOOD, f"no GPU's clock is held by us ({path})")]


def _judge(left: Leftover) -> Finding:
    if left.taken:
        by = f"process {left.entry.controller_pid}" if left.entry else "a process"
        return Finding(SUBJECT, Verdict.NOTE, f"GPU {left.uuid}: its clock is controlled by {by}")
    if left.problem:
        return Finding(SUBJECT, Verdict.PROBLEM, left.problem)
    text = f"GPU {left.uuid} may still be locked: its controller and guardian were killed"
    return Finding(SUBJECT, Verdict.PROBLEM, text, RESET)


def clean() -> list[Finding]:
    """Give back every GPU that nobody looks after."""
    path = default_folder()
    if not path.exists() and not path.is_symlink():
        return [Finding("reset", Verdict.GOOD, "no GPU was left behind")]
    try:
        state = StateFolder(path)
    except OSError as error:
        return [Finding("reset", Verdict.PROBLEM, str(error))]
    try:
        restored, failed = leftovers.restore(state)
    except OSError as error:
        return [Finding("reset", Verdict.PROBLEM, str(error))]
    finally:
        state.close()
    found = [Finding("reset", Verdict.GOOD, f"gave back GPU {left.uuid}") for left in restored]
    found += [Finding("reset", Verdict.PROBLEM, f"GPU {left.uuid}: {left.problem}", RESET) for left in failed]
    return found or [Finding("reset", Verdict.GOOD, "no GPU was left behind")]
