"""Everything that needs a GPU, in the order of what it is worth, within a budget of minutes.

``python -m bench.gpu_check --minutes 6 --out FOLDER`` appends one JSON line for each case to
``FOLDER/results.jsonl`` as it comes. Steps run in processes of their own: one that hangs, crashes
or loses the GPU takes no other along. Cases that did not fit are named at the end, and ``--resume``
continues with them. ``--rehearse`` takes the same path on the CPU with small shapes.
"""
