"""Replaces the convolutions of whole models by MaskedConv2d, and back."""
