"""Memories that stand on ``stack``, a file each; the registry imports what it is asked for."""
