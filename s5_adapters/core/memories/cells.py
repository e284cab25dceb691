"""Stacks of flax's recurrent cells, with resets: what the GRU and the LSTM share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

from s5_adapters.core.memories.memory import Memory, Params, State, init_projection, project
from s5_adapters.core.shapes import Bool, Float


@dataclass(frozen=True, kw_only=True)
class StackedCells(Memory):
    """Cells on top of each other; the state's leaves are the cell's, stacked: ``(batch, n_layers, d_model)``.

    An input whose width is not d_model is brought to it by one dense map first, as for S5.
    """

    @property
    @abstractmethod
    def cell(self) -> nn.RNNCellBase:
        """One cell of width d_model."""

    def init(self, key: Array, width: int) -> Params:
        """Make parameters. See ``Memory.init``."""
        projection_key, cells_key = jax.random.split(key)
        carry, zeros = _layer(self.initial_state(1), 0), jnp.zeros((1, self.d_model), jnp.float32)
        cells = jax.vmap(lambda k: self.cell.init(k, carry, zeros)["params"])(
            jax.random.split(cells_key, self.n_layers)
        )
        return {**init_projection(projection_key, width, self.d_model), "cells": cells}

    def apply(
        self, params: Params, state: State, x: Float[Array, "T B F"], episode_starts: Bool[Array, "T B"]
    ) -> tuple[State, Float[Array, "T B H"]]:
        """Run over a sequence, layer by layer. See ``Memory.apply``."""
        self.check_sequence(params, state, x, episode_starts)
        x = project(params, x)
        finals = []
        for i in range(self.n_layers):
            cell_params = jax.tree.map(lambda leaf, i=i: leaf[i], params["cells"])

            def advance(
                carry: State, now: tuple[Array, Array], cell_params: Params = cell_params
            ) -> tuple[State, Array]:
                return self._advance(cell_params, carry, *now)

            final, x = lax.scan(advance, _layer(state, i), (x, episode_starts))
            finals.append(final)
        return _stack(finals), x

    def step(
        self, prepared: Params, state: State, x: Float[Array, "B F"], episode_starts: Bool[Array, "B"]
    ) -> tuple[State, Float[Array, "B H"]]:
        """Run over one step. See ``Memory.step``."""
        x = project(prepared, x)
        finals = []
        for i in range(self.n_layers):
            cell_params = jax.tree.map(lambda leaf, i=i: leaf[i], prepared["cells"])
            final, x = self._advance(cell_params, _layer(state, i), x, episode_starts)
            finals.append(final)
        return _stack(finals), x

    def _advance(self, params: Params, carry: State, x: Array, episode_starts: Array) -> tuple[State, Array]:
        carry = jax.tree.map(lambda leaf: jnp.where(episode_starts[:, None], 0.0, leaf), carry)
        advanced: Any = self.cell.apply({"params": params}, carry, x)
        return advanced[0], advanced[1]


def _layer(state: State, i: int) -> State:
    return jax.tree.map(lambda leaf: leaf[:, i], state)


def _stack(layers: list[State]) -> State:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *layers)
