"""All checks that need a GPU, most important first, within a budget of minutes.

``python -m bench.gpu_check --minutes 6 --out FOLDER`` appends one JSON line for each finished case
to ``FOLDER/results.jsonl``. Each step runs in its own process, so that a hang, a crash or a lost
GPU does not affect other steps. Cases that did not fit are listed at the end, and ``--resume``
continues with them. ``--rehearse`` takes the same path on the CPU with small shapes.
"""
