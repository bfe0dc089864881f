"""Speed and memory of the layer beside what plain PyTorch offers: ``make bench``."""
