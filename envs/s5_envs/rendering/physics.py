"""Carts and pendulums."""

from __future__ import annotations

import math

from s5_envs.popgym import cartpole, pendulum
from s5_envs.rendering.registry import renders
from s5_envs.rendering.scenes import BLUE, DARK, INK, PALE, RED, Sketch, Stroke

_GAUGE = 41  # characters


def gauge(value: float, low: float, high: float) -> str:
    """Return a line of text with a mark where ``value`` lies between ``low`` and ``high``."""
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    place = round(share * (_GAUGE - 1))
    return "|" + "-" * place + "o" + "-" * (_GAUGE - 1 - place) + "|"


@renders(cartpole.CartPole)
def _cartpole(env: cartpole.CartPole, state: cartpole.State) -> Sketch:
    x, x_dot, angle, angle_dot = (float(value) for value in state.physics)
    limit = cartpole.X_LIMIT
    tip = (x + 2 * cartpole.HALF_LENGTH * math.sin(angle), 0.1 + 2 * cartpole.HALF_LENGTH * math.cos(angle))
    is_lost = abs(x) > limit or abs(angle) > cartpole.ANGLE_LIMIT
    return Sketch(
        caption=(
            f"{env.name}: step {int(state.time)} of {env.episode_length}",
            f"x {x:+.2f} m  {x_dot:+.2f} m/s   angle {math.degrees(angle):+.1f}° {angle_dot:+.2f} rad/s",
        ),
        strokes=(
            Stroke(((-limit, 0.0), (limit, 0.0)), 0.02, DARK),
            *(Stroke(((end, -0.1), (end, 0.1)), 0.02, RED) for end in (-limit, limit)),
            Stroke(((x - 0.25, 0.05), (x + 0.25, 0.05)), 0.2, INK),
            Stroke(((x, 0.1), tip), 0.07, RED if is_lost else BLUE),
        ),
        low=(-limit - 0.4, -0.3),
        high=(limit + 0.4, 1.3),
        gauge=gauge(x, -limit, limit),
    )


@renders(pendulum.Pendulum)
def _pendulum(env: pendulum.Pendulum, state: pendulum.State) -> Sketch:
    angle, speed = (float(value) for value in state.physics)
    angle = (angle + math.pi) % (2 * math.pi) - math.pi
    # An angle grows against the clock.
    tip = (-pendulum.LENGTH * math.sin(angle), pendulum.LENGTH * math.cos(angle))
    return Sketch(
        caption=(
            f"{env.name}: step {int(state.time)} of {env.episode_length}",
            f"angle from upright {math.degrees(angle):+.0f}°   {speed:+.2f} rad/s",
        ),
        strokes=(
            Stroke(((0.0, 0.0), (0.0, pendulum.LENGTH)), 0.02, PALE),
            Stroke(((0.0, 0.0), tip), 0.16, RED),
            Stroke(((0.0, 0.0),), 0.2, INK),
            Stroke((tip,), 0.16, RED),
        ),
        low=(-2.0, -1.25),
        high=(2.0, 1.25),
        gauge=gauge(angle, -math.pi, math.pi),
    )
