"""Parts that PPO and A2C share: advantages of a critic, an entropy bonus, a value loss."""

from dataclasses import dataclass

from s5_adapters.purejax.algorithms.algorithm import Algorithm
from s5_adapters.purejax.algorithms.metrics import ROLLOUT_METRICS
from s5_adapters.purejax.fields import Flag, Fraction, NonNegative

LOSS_METRICS = ROLLOUT_METRICS | {
    "policy_loss": "loss of the policy, mean over the gradient steps",
    "value_loss": "value loss before its coefficient, mean over the gradient steps",
    "entropy": "policy entropy in nats, mean over the gradient steps",
}
"""The metrics that both report, with their meaning."""


@dataclass(frozen=True)
class ActorCriticAlgorithm(Algorithm):
    """Policy gradients along advantages that a critic estimates."""

    gae_lambda: Fraction = 0.95
    """Lambda of generalised advantage estimation (Schulman et al., arXiv 1506.02438); value targets are
    those of TD(lambda). 1 gives the n-step return, up to the end of the rollout."""
    normalize_advantages: Flag = True
    """Standardise the advantages within the batch of each gradient step."""
    entropy_coef: NonNegative = 0.0
    """Weight of the entropy bonus."""
    value_coef: NonNegative = 1.0
    """Weight of the value loss, which is half the mean squared error."""
