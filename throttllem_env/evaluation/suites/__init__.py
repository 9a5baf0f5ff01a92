"""Frozen sets of comparisons that everybody runs alike, and their leaderboard."""

from throttllem_env.evaluation.suites.run import CaseResult, run_suite
from throttllem_env.evaluation.suites.suite import Case, Suite, load_suite, suite_names

__all__ = ["Case", "CaseResult", "Suite", "load_suite", "run_suite", "suite_names"]
