"""A comparison as one HTML page for people, which needs no network.

Plots are drawn by Bokeh: its script weighs 1.3 MB, so page and data stay under 5 MB with it inlined (plotly's
alone weighs 4.8 MB), it draws thousands of points on a canvas, and it is typed.
"""

from throttllem_env.evaluation.report.costs import Tariff
from throttllem_env.evaluation.report.page import write_report
from throttllem_env.evaluation.report.suite_page import write_suite_report
from throttllem_env.evaluation.report.suite_source import is_suite

__all__ = ["Tariff", "is_suite", "write_report", "write_suite_report"]
