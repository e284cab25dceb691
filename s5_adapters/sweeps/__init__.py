"""Many runs, each in a process of its own: what ``s5-adapters bench`` and ``reproduce`` share."""
