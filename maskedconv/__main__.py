"""``python -m maskedconv``: lists the commands. Does not import torch."""

from __future__ import annotations

import sys

from maskedconv import __version__
from maskedconv.console import say

COMMANDS = {
    "train": "train one network; --out FOLDER --keep stores it",
    "predict": "classify a folder of images with a trained network, or measure its accuracy",
    "reproduce": "run the papers' experiments and draw a report",
    "report": "draw the report of a folder of reproduce or train",
    "env": "print versions, and which backends run here and why not",
}


def main(arguments: list[str]) -> int:
    """Prints the commands; the exit status is 2 if ``arguments`` name something else."""
    if arguments and arguments[0] not in ("-h", "--help"):
        hint = "python -m maskedconv." + arguments[0]
        known = hint if arguments[0] in COMMANDS else f"one of {', '.join(COMMANDS)}"
        say(f"error: python -m maskedconv takes no arguments, got {arguments[0]!r}; run {known}")
        return 2
    print(f"maskedconv {__version__}: convolutions that train only part of their filters\n")
    for name, purpose in COMMANDS.items():
        print(f"  python -m maskedconv.{name:<11}{purpose}")
    print("\nEach command has --help. In Python: import maskedconv; dir(maskedconv)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
