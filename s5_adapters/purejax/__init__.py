"""Learning algorithms in one jitted program, and what runs, watches, keeps and evaluates them.

Everything is loaded when it is first asked for: the algorithms need neither Orbax nor a progress bar, which
only runs on the host do.
"""

from typing import TYPE_CHECKING

from s5_adapters.lazy import lazy_exports

if TYPE_CHECKING:
    from s5_adapters.purejax.algorithms.a2c import A2CConfig as A2CConfig
    from s5_adapters.purejax.algorithms.algorithm import Algorithm as Algorithm
    from s5_adapters.purejax.algorithms.algorithm import TrainState as TrainState
    from s5_adapters.purejax.algorithms.algorithm import register_algorithm as register_algorithm
    from s5_adapters.purejax.algorithms.ppo import PPOConfig as PPOConfig
    from s5_adapters.purejax.cloning import clone as clone
    from s5_adapters.purejax.config import TrainConfig as TrainConfig
    from s5_adapters.purejax.episodes import Episodes as Episodes
    from s5_adapters.purejax.episodes import save_episodes as save_episodes
    from s5_adapters.purejax.evaluate import Evaluation as Evaluation
    from s5_adapters.purejax.evaluate import Evaluator as Evaluator
    from s5_adapters.purejax.faults import RunFolderError as RunFolderError
    from s5_adapters.purejax.interrupt import TimeLimit as TimeLimit
    from s5_adapters.purejax.problem import Problem as Problem
    from s5_adapters.purejax.problem import build_problem as build_problem
    from s5_adapters.purejax.restore import RestoredPolicy as RestoredPolicy
    from s5_adapters.purejax.restore import restore_policy as restore_policy
    from s5_adapters.purejax.run_folder import RunConfig as RunConfig
    from s5_adapters.purejax.run_folder import RunOptions as RunOptions
    from s5_adapters.purejax.run_folder import read_config as read_config
    from s5_adapters.purejax.trainer import InterruptedRunError as InterruptedRunError
    from s5_adapters.purejax.trainer import NonFiniteError as NonFiniteError
    from s5_adapters.purejax.trainer import Trainer as Trainer
    from s5_adapters.purejax.training import TrainResult as TrainResult
    from s5_adapters.purejax.training import make_train as make_train

_HOMES = {
    name: f"{__name__}.{module}"
    for module, names in {
        "algorithms.a2c": ["A2CConfig"],
        "algorithms.algorithm": ["Algorithm", "TrainState", "register_algorithm"],
        "algorithms.ppo": ["PPOConfig"],
        "cloning": ["clone"],
        "config": ["TrainConfig"],
        "episodes": ["Episodes", "save_episodes"],
        "evaluate": ["Evaluation", "Evaluator"],
        "faults": ["RunFolderError"],
        "interrupt": ["TimeLimit"],
        "problem": ["Problem", "build_problem"],
        "restore": ["RestoredPolicy", "restore_policy"],
        "run_folder": ["RunConfig", "RunOptions", "read_config"],
        "trainer": ["InterruptedRunError", "NonFiniteError", "Trainer"],
        "training": ["TrainResult", "make_train"],
    }.items()
    for name in names
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]

__getattr__ = lazy_exports(__name__, _HOMES)
