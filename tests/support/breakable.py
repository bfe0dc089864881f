"""CUDA kernels for the CPU whose statements can be taken out, and bounds exceeded, at run time."""

from __future__ import annotations

import re
import shutil

import emulation

ORDERING = re.compile(r"(__syncthreads\(\)|__threadfence\(\)|copy_async_wait<[^>]*>\(\));")
BOUND = re.compile(r"pixel < a\.pixels|channel (<|>=) (\w\.)?(partials\.)?channels\b")
_SWITCHES = """
inline int removed = -1, partly = 0, exceeded = -1;
inline bool reached(int i) { return removed != i || (partly && threadIdx.x < 32); }
inline int beyond(int i) { return exceeded == i; }
extern "C" void remove_statement(int i, int only_partly) { removed = i, partly = only_partly; }
extern "C" void exceed_bound(int i) { exceeded = i; }
namespace maskedconv {
"""


class Breakable:
    """The emulation of a kernel's sources, changed.

    Args:
        common: names of headers of ``csrc/common/cuda`` to change as well.

    Attributes:
        library: result of ``emulation.build``.
        statements: the text of each that :meth:`without` takes out.
        sources: the name of the file of each statement.
        bounds: the text of each comparison that ``library.exceed_bound`` moves by one.
    """

    def __init__(self, name, folder, statements=ORDERING, bounds=BOUND, common=()):
        csrc = folder / "csrc"
        shutil.copytree(emulation.ROOT / "csrc", csrc)
        self.statements, self.sources, self.bounds = [], [], []
        headers = [csrc / "common" / "cuda" / header for header in common]
        for source in [*sorted((csrc / name / "cuda").iterdir()), *headers]:
            text = statements.sub(self._removable, source.read_text())
            self.sources += [source.name] * (len(self.statements) - len(self.sources))
            source.write_text(bounds.sub(self._movable, text))
        everywhere = csrc / "common" / "emulation" / "emulation.h"
        text = everywhere.read_text().replace("namespace maskedconv {\n", _SWITCHES.lstrip(), 1)
        everywhere.write_text(text)
        self.library = emulation.build(name, folder, csrc)

    def without(self, i, only_partly=False):
        """Takes out statement ``i``, or none if -1; if ``only_partly``, the first warp keeps it."""
        self.library.remove_statement(i, only_partly)

    def _removable(self, match):
        self.statements.append(match[1])
        return f"if (reached({len(self.statements) - 1})) {match[0]}"

    def _movable(self, match):
        self.bounds.append(match[0])
        return f"{match[0]} + beyond({len(self.bounds) - 1})"
