"""Recurrences through time: the resettable linear recurrence, how it is computed, and a causal convolution.

Use ``linear_recurrence`` (also exported by ``s5_adapters.core``) and ``convolution.causal_convolution``;
what is behind ``scan.py`` may change: methods, adjoint, kernels. It imports ``core.xla``,
``core.checks`` and ``core.shapes``.
"""
