"""Runners of the entries of experiments: one module each, with ``run`` and ``estimate``."""
