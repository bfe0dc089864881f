"""Compilers that only act as if: scripts that create their outputs, or refuse as real ones do.

Each writes its arguments to ``<name>.log`` beside it, one call a line, arguments separated by tabs.
"""

from __future__ import annotations

import shlex
from pathlib import Path

# Creates what -o names; linking copies a module that Python can load.
COMPILE = """\
while [ $# -gt 0 ]; do
  case "$1" in
    -o) out=$2; shift ;;
    -shared) linking=1 ;;
    -dumpversion) echo 9.9.9; exit ;;
  esac
  shift
done
if [ "$linking" ]; then cp {module} "$out"; else : > "$out"; fi
"""
NVCC = """\
case "$1" in
  --list-gpu-code)
    {listing}
    exit ;;
  --dryrun) echo '#$ LIBRARIES=  "-L/nowhere" "-L{folder}"' >&2; exit ;;
esac
"""
KNOWN_TO_12_4 = "printf 'sm_%s\\n' 50 70 75 80 86 89 90"


def refuse(message: str) -> str:
    """The commands of a compiler that always fails with a message."""
    return f"echo {shlex.quote(message)} >&2; exit 1\n"


class Compilers:
    """A folder for PATH with a test's compilers and the basic tools of a shell."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder, self.module = folder, module
        (folder / "libcudart_static.a").touch()

    def add(self, name: str, commands: str) -> None:
        script = self.folder / name
        # In one write, because ninja runs several in parallel.
        log = 'call=$(printf \'%s\\t\' "$@"); echo "$call" >> "$0.log"\n'
        script.write_text(f"#!/bin/sh\n{log}{commands}")
        script.chmod(0o755)

    def add_cxx(self, name: str = "g++", before: str = "") -> None:
        self.add(name, before + COMPILE.format(module=shlex.quote(self.module)))

    def add_nvcc(self, before: str = "", listing: str = KNOWN_TO_12_4) -> None:
        """nvcc 12.4; ``listing`` prints other architectures."""
        asked = NVCC.format(listing=listing, folder=self.folder)
        self.add("nvcc", asked + before + COMPILE.format(module=shlex.quote(self.module)))

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call of a compiler."""
        lines = (self.folder / f"{name}.log").read_text().splitlines()
        return [line.rstrip("\t").split("\t") for line in lines]
