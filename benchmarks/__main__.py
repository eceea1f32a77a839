"""``python -m benchmarks``: a step of each system, and encoding, in under three minutes."""

from __future__ import annotations

from benchmarks import encode, machine, step

step.main(["--repetitions", "3", "--parity-steps", "20"])
print()
few = ["--repetitions", "2", "--batch-size", "8", "--parity-steps", "5"]
step.main(["--system", "target-vae", *few, *([] if machine.has_bf16_unit() else ["--skip-bf16"])])
print()
encode.main([])
