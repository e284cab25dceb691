"""How programs are compiled, kept and run: what XLA, the platform and the process ask of the code above.

Nothing here knows what a memory or a policy is. It imports JAX, Flax and NumPy, and nothing of this project.
"""
