"""Measures whole models: what their training costs."""
