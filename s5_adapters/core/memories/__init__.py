"""The contract of a memory, the stack that most of them share, and one file for each memory.

A new memory is one file here and one line of the registry in ``memory.py``; from outside,
``register_memory`` serves. It imports ``core.recurrence``, ``core.xla``,
``core.checks`` and ``core.shapes``.
"""
