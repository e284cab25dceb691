"""The table of ``s5-adapters envs``."""

from rich import box
from rich.console import Console
from rich.table import Table

import s5_envs
from s5_envs.extras import prefixes
from s5_envs.listing import registry_table

_LEGEND = """steps: the most of an episode; reward: of one step; random, best: mean return of random actions
and of the best play known of a player who sees the hidden state; "+ action": the previous action and a
first-step flag are appended"""


def print_environments() -> None:
    """Print a line for each POPGym environment, then the other ids that ``train --env`` takes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("id", "observation", "action"):
        table.add_column(column, overflow="fold")
    for column in ("steps", "reward", "random", "best"):
        table.add_column(column, justify="right", no_wrap=True)
    rows = registry_table()
    for row in rows:
        table.add_row(
            row.env_id,
            row.observation + (" + action" if row.previous_action else ""),
            row.action,
            str(row.episode_length),
            f"{row.reward_low:.3g} .. {row.reward_high:.3g}",
            f"{row.random_score:.3f}",
            f"{row.best_score:.3f}",
        )
    console = Console()
    # Piped into a file or grep, a line stays a line.
    (console if console.is_terminal else Console(width=200)).print(table)
    listed = {row.env_id for row in rows}
    others = [env_id for env_id in s5_envs.registered_ids() if env_id not in listed]
    print(_LEGEND)
    print(f"also: {', '.join([*others, *s5_envs.gymnax_ids()])}")
    extras = (f"{prefix}... (pip install 's5-adapters[{extra}]')" for prefix, extra in prefixes().items())
    print(f"and: {', '.join(extras)}")
