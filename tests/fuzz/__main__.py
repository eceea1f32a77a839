"""Damage many files: ``python -m tests.fuzz --n 10000 --seed 7 --only npy,cs``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz import formats
from tests.fuzz.judge import judge, make, run


def main() -> int:
    """Print a line a format, then each kind of fault once; return 1 where there is any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--n", type=int, default=1000, help="damaged files of each format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="formats, separated by commas")
    parser.add_argument("--case", type=int, help="judge this one case and keep its file")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    names = [name for name in arguments.only.split(",") if name]
    chosen = [f for f in formats.every() if not names or f.name in names]
    total = 0
    if arguments.case is not None:
        folder = Path(tempfile.mkdtemp())
        chosen[0].prepare(folder)
        path = make(chosen[0], folder, arguments.case, arguments.seed)
        print(path, judge(chosen[0], path))
        return 0
    for form in chosen:
        with tempfile.TemporaryDirectory() as folder:
            start = time.monotonic()
            faults = run(form, Path(folder), arguments.n, arguments.seed)
        seconds = time.monotonic() - start
        print(f"{form.name}: {arguments.n} files, {len(faults)} bad answers, {seconds:.1f} s")
        kinds = Counter(fault.replace(folder, "")[:90] for _, fault in faults)
        example = {fault.replace(folder, "")[:90]: (i, fault) for i, fault in reversed(faults)}
        for kind, count in kinds.most_common(40):
            print(f"  {count} x, as case {example[kind][0]}: {example[kind][1]}")
        sys.stdout.flush()
        total += len(faults)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
