"""POPGym (Morad et al., ICLR 2023, arXiv 2303.01859) in JAX: one file a family, one class a family."""

from s5_envs.popgym.autoencode import Autoencode
from s5_envs.popgym.battleship import Battleship
from s5_envs.popgym.concentration import Concentration
from s5_envs.popgym.count_recall import CountRecall
from s5_envs.popgym.higher_lower import HigherLower
from s5_envs.popgym.labyrinth_escape import LabyrinthEscape
from s5_envs.popgym.labyrinth_explore import LabyrinthExplore
from s5_envs.popgym.minesweeper import MineSweeper
from s5_envs.popgym.multiarmed_bandit import MultiarmedBandit
from s5_envs.popgym.noisy_position_only_cartpole import NoisyPositionOnlyCartPole
from s5_envs.popgym.noisy_position_only_pendulum import NoisyPositionOnlyPendulum
from s5_envs.popgym.position_only_cartpole import PositionOnlyCartPole
from s5_envs.popgym.position_only_pendulum import PositionOnlyPendulum
from s5_envs.popgym.repeat_first import RepeatFirst
from s5_envs.popgym.repeat_previous import RepeatPrevious
from s5_envs.popgym.velocity_only_cartpole import VelocityOnlyCartPole

__all__ = [
    "Autoencode",
    "Battleship",
    "Concentration",
    "CountRecall",
    "HigherLower",
    "LabyrinthEscape",
    "LabyrinthExplore",
    "MineSweeper",
    "MultiarmedBandit",
    "NoisyPositionOnlyCartPole",
    "NoisyPositionOnlyPendulum",
    "PositionOnlyCartPole",
    "PositionOnlyPendulum",
    "RepeatFirst",
    "RepeatPrevious",
    "VelocityOnlyCartPole",
]
