"""How runs adapt within a task: the return of each trial, the reward of each step, several runs together."""
