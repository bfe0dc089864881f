"""Speed and memory of the layers compared with plain PyTorch: ``make bench``."""
