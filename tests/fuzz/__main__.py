"""``python -m tests.fuzz --minutes N``: random cases until the time is over."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.fuzz.worker import Budget, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--cases", type=int, help="stop after so many")
    parser.add_argument("--isa", help="sets MASKEDCONV_ISA: generic, avx2, avx512 and so on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.isa:
        os.environ["MASKEDCONV_ISA"] = arguments.isa
    budget = Budget(time.monotonic() + 60 * arguments.minutes, arguments.cases)
    done, failed = run(arguments.seed, arguments.threads, budget)
    isa = arguments.isa or "the best that there is"
    print(f"seed {arguments.seed}, isa {isa}, {arguments.threads} threads")
    print(f"{done - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
