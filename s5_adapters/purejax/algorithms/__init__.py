"""The contract of a learning algorithm, what algorithms share, and one file for each algorithm.

A new algorithm is one file here and one line of the registry in ``algorithm.py``; from outside,
``register_algorithm`` serves. An algorithm imports ``config``, ``problem``, ``rollout`` and ``core``, and
nothing of what runs it.
"""
