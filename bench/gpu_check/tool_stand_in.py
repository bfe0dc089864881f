"""Imitates the output of NVIDIA's tools and runs the command, for rehearsals without them."""

from __future__ import annotations

import subprocess
import sys


def main() -> int:
    tool, *arguments = sys.argv[1:]
    command = arguments[arguments.index(sys.executable) :]
    code = subprocess.run(command, check=False).returncode
    if tool == "ncu":
        names = arguments[arguments.index("--metrics") + 1].split(",")
        print("==PROF== Disconnected from process 1")
        for row in (["ID", "Kernel Name", *names], ["", "", *("unit" for _ in names)]):
            print(",".join(f'"{item}"' for item in row))
        print(",".join(f'"{item}"' for item in ["0", "a stand-in", *("1.0" for _ in names)]))
    elif "racecheck" in arguments:
        print("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")
    else:
        print("========= ERROR SUMMARY: 0 errors")
    return code


if __name__ == "__main__":
    sys.exit(main())
