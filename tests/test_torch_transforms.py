"""The bridge under torch.func, torch.compile, tracing and export, and in forked processes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import func

from s5_adapters.core import make_memory
from s5_adapters.core.xla.processes import refuse_forked_process
from s5_adapters.torch_bridge import JaxModule, jax2torch

torch.set_num_threads(1)

# Torch warns of itself: its roads to a trace are deprecated (people take them: SB3's export recipe does), its
# forward mode scripts a decomposition, and its compiler reads the gradient of what is no leaf.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (
        "`torch.jit.trace` is deprecated",
        "`torch.jit.script` is deprecated",
        "You are using the legacy TorchScript-based ONNX export",
        "The feature will be removed. Please remove usage of this function",
        "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed",
    )
]

ROWS, WIDTH = 3, 4


def by_torch(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x @ w).sum(-1)


by_jax = jax2torch(lambda w, x: jnp.tanh(x @ w).sum(-1))


@pytest.fixture(autouse=True, scope="module")
def _validation_of_distributions() -> Iterator[None]:
    """Torch's compiler turns it off for good, in this process, and other modules' tests rely on it."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture
def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(WIDTH, 2, generator=generator), torch.randn(ROWS, WIDTH, generator=generator)


TRANSFORMS: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], Any]] = {
    "grad": lambda f, w, x: func.grad(lambda w: f(w, x).sum())(w),
    "grad_and_value": lambda f, w, x: func.grad_and_value(lambda w: f(w, x).sum())(w),
    "vjp": lambda f, w, x: func.vjp(f, w, x)[1](torch.ones(ROWS)),
    "jacrev": lambda f, w, x: func.jacrev(f)(w, x),
    "jacrev twice": lambda f, w, x: func.jacrev(func.jacrev(f))(w, x),
    "grad of grad": lambda f, w, x: func.grad(lambda w: func.grad(lambda w: f(w, x).sum())(w).square().sum())(
        w
    ),
    "vmap": lambda f, w, x: func.vmap(f, in_dims=(None, 0))(w, x),
    "vmap over another axis": lambda f, w, x: func.vmap(f, in_dims=(None, 1), out_dims=0)(w, x.T),
    "vmap over both": lambda f, w, x: func.vmap(f, in_dims=(2, 0))(w[..., None].expand(-1, -1, ROWS), x),
    "vmap of vmap": lambda f, w, x: func.vmap(func.vmap(f, (None, 0)), (0, None))(torch.stack([w, 2 * w]), x),
    "gradients of samples": lambda f, w, x: func.vmap(func.grad(f), in_dims=(None, 0))(w, x),
    "vmap under autograd": lambda f, w, x: torch.autograd.grad(
        func.vmap(f, in_dims=(None, 0))(w.requires_grad_(), x).sum(), w
    ),
    "autograd.functional.hessian": lambda f, w, x: torch.autograd.functional.hessian(
        lambda w: f(w, x).sum(), w
    ),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_torch_func_gives_what_it_gives_of_torchs_own(
    name: str, given: tuple[torch.Tensor, torch.Tensor]
) -> None:
    transform = TRANSFORMS[name]
    mine, theirs = (transform(f, *[t.clone() for t in given]) for f in (by_jax, by_torch))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_integers_complex_numbers_and_trees_go_through_transforms() -> None:
    def tree(x: Any, i: Any) -> dict[str, Any]:
        return {"value": (x["a"] * jnp.conj(x["a"]) * 2j).sum() * i, "index": i + 1}

    def of_torch(x: Any, i: Any) -> dict[str, Any]:
        return {"value": (x["a"] * torch.conj(x["a"]) * 2j).sum() * i, "index": i + 1}

    a = torch.tensor([1 + 2j, 3 - 1j, 0.5j], dtype=torch.complex64)
    index = torch.tensor([2, 0], dtype=torch.int32)

    def gradients(f: Any) -> Any:
        def loss(a: torch.Tensor, i: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            result = f({"a": a}, i)
            return (result["value"] * (1 - 1j)).real, result["index"]

        return func.vmap(func.grad(loss, has_aux=True), in_dims=(None, 0))(a, index)

    mine, theirs = gradients(jax2torch(tree)), gradients(of_torch)
    torch.testing.assert_close(mine, theirs)


def test_forward_mode_is_refused_by_name(given: tuple[torch.Tensor, torch.Tensor]) -> None:
    w, x = given
    with pytest.raises(RuntimeError, match=r"jax2torch\(<lambda>\): forward-mode.*reverse mode"):
        func.jvp(lambda w: by_jax(w, x), (w,), (w,))


class Net(torch.nn.Module):
    """A memory whose parameters are torch's."""

    def __init__(self) -> None:
        super().__init__()
        memory = make_memory("s5", d_model=8, d_state=8, n_layers=1)
        state, starts = memory.initial_state(2), jnp.zeros((5, 2), bool)
        self.inner = JaxModule(memory.init(jax.random.key(0), 3))
        self.run = jax2torch(lambda params, x: memory.apply(params, state, x, starts)[1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self.inner.tree(), x)


@pytest.fixture(scope="module")
def net() -> Net:
    return Net()


def test_an_ensemble_of_memories_runs_by_vmap(net: Net) -> None:
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(1))
    stacked = {name: torch.stack([p.detach(), 1.1 * p.detach()]) for name, p in net.named_parameters()}
    both = func.vmap(lambda params: func.functional_call(net, params, (x,)))(stacked)
    for i in range(2):
        own = {name: leaf[i] for name, leaf in stacked.items()}
        torch.testing.assert_close(both[i], func.functional_call(net, own, (x,)), rtol=1e-4, atol=1e-5)


def test_prepared_serves_functional_call_and_is_refused_inside_a_transform(net: Net) -> None:
    prepare = jax.jit(lambda params: jax.tree.leaves(params)[0].sum())
    doubled = {name.removeprefix("inner."): 2 * p.detach() for name, p in net.named_parameters()}

    class Prepared(torch.nn.Module):
        def __init__(self, inner: JaxModule) -> None:
            super().__init__()
            self.inner = inner

        def forward(self) -> torch.Tensor:
            return torch.tensor(float(self.inner.prepared(prepare)))

    held = Prepared(net.inner)
    named = {f"inner.{name}": leaf for name, leaf in doubled.items()}
    torch.testing.assert_close(func.functional_call(held, named, ()), 2 * held())
    with pytest.raises(RuntimeError, match=r"JaxModule\.prepared: .*torch\.func"):
        func.vmap(lambda params: func.functional_call(held, params, ()))(
            {name: torch.stack([leaf, leaf]) for name, leaf in named.items()}
        )


def test_torch_compile_runs_it_between_its_graphs(given: tuple[torch.Tensor, torch.Tensor]) -> None:
    w, x = given

    def loss(f: Any, w: torch.Tensor) -> torch.Tensor:
        return (f(w, 2 * x) + 1).square().sum()

    compiled = torch.compile(lambda w: loss(by_jax, w), backend="aot_eager")
    for scale in (1.0, 0.5):
        mine, theirs = ((scale * w).requires_grad_() for _ in range(2))
        compiled(mine).backward()
        loss(by_torch, theirs).backward()
        torch.testing.assert_close(mine.grad, theirs.grad)
    torch._dynamo.reset()


def test_a_compiled_module_acts_by_its_parameters_of_the_moment(net: Net) -> None:
    x = torch.ones(5, 2, 3)
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(compiled(x), net(x))
    with torch.no_grad():
        net.inner.tree()["D"].add_(1)
    torch.testing.assert_close(compiled(x), net(x))
    torch._dynamo.reset()


@pytest.mark.parametrize("grad", [False, True])
def test_tracing_is_refused_with_the_way_out(
    grad: bool, given: tuple[torch.Tensor, torch.Tensor], net: Net
) -> None:
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="--format stablehlo"):
        torch.jit.trace(by_jax, given)
    prepare = jax.jit(lambda params: jax.tree.leaves(params)[0].sum())
    net.inner.prepared(prepare)  # what is there already would be a constant too
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match="--format stablehlo"):
        torch.jit.trace(lambda x: x + float(net.inner.prepared(prepare)), given[1])


def test_export_is_refused_with_the_way_out(net: Net) -> None:
    with pytest.raises(Exception, match="--format stablehlo"):
        torch.export.export(net, (torch.ones(5, 2, 3),), strict=False)


def test_onnx_of_a_trace_is_refused(net: Net) -> None:
    with pytest.raises(Exception, match="--format stablehlo"):
        torch.onnx.export(net, (torch.ones(5, 2, 3),), io.BytesIO(), dynamo=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that can fork")
@pytest.mark.filterwarnings("ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning")
def test_a_process_forked_after_jax_computed_is_refused(given: tuple[torch.Tensor, torch.Tensor]) -> None:
    by_jax(*given)  # JAX has computed
    module = JaxModule({"w": np.ones(2, np.float32)})
    prepare = jax.jit(lambda params: params["w"])
    module.prepared(prepare)
    calls = {
        b"jax2torch(<lambda>)": lambda: by_jax(*given),
        b"JaxModule.prepared": lambda: module.prepared(prepare),
        b"caller": lambda: refuse_forked_process("caller"),
    }
    for name, call in calls.items():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                call()
                os.write(writing, b"it ran")
            except RuntimeError as error:
                os.write(writing, str(error).encode())
            finally:
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        assert name in answer
        assert b"spawn" in answer
        assert b"\n" not in answer
