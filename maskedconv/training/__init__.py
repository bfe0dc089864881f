"""The training loop, its state, checkpoints and results. Independent of runs and papers."""
