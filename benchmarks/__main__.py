"""``python -m benchmarks``: the step, in under two minutes."""

from __future__ import annotations

from benchmarks.step import main

main(["--repetitions", "3", "--parity-steps", "20"])
