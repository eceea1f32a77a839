"""The report of a run: one self-contained page and its pictures."""

from __future__ import annotations

from modpose.report.build import build_report

__all__ = ["build_report"]
