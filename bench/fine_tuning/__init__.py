"""Fine-tuning pretrained weights by several ways, side by side: ``python -m bench.fine_tuning``."""
