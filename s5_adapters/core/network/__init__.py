"""The actor-critic around a memory: encoder, torsos, heads, and the action spaces with their distributions.

Use what ``s5_adapters.core`` exports. It imports ``core.memories``, ``core.xla``,
``core.checks`` and ``core.shapes``.
"""
