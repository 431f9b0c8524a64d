"""The report: `report_data` computes its contents, `render` writes it as one self-contained page."""

from sweeper.report.data import ReportData, report_data
from sweeper.report.page import render, write_report

__all__ = ["ReportData", "render", "report_data", "write_report"]
