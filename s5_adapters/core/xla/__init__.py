"""How programs are compiled, kept and run: the demands of XLA, the platform and the process.

Nothing here knows what a memory or a policy is. It imports JAX, Flax and NumPy, and of this
project the array types of ``core.shapes``.
"""
