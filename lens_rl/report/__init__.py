"""`report.html`: one page a run that opens anywhere, and one that lays several runs over each other."""

from lens_rl.report.page import REPORT, write_comparison, write_report

__all__ = ["REPORT", "write_comparison", "write_report"]
