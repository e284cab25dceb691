"""Policies outside the process: one portable safetensors file, and one StableHLO program.

It may import every other room of ``core``; of the rooms it alone needs safetensors, so ``import
s5_adapters.core`` does not load it.
"""
