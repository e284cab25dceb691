"""The bridge: values and gradients equal to JAX's, one trace per shape, no race, no leak, errors that say
what to do.
"""

from __future__ import annotations

import copy
import io
import subprocess
import sys
import textwrap
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.optim.optimizer import _default_to_fused_or_foreach

from s5_adapters.torch_bridge import Buckets, JaxModule, arrays, jax2torch, to_jax, to_torch
from s5_adapters.torch_bridge.watched import unwatch

torch.set_num_threads(1)


class Pair(NamedTuple):
    left: Any
    right: Any


def network(params: dict[str, Any], x: Any, *, scale: Any = 1.0) -> dict[str, Any]:
    hidden = jnp.tanh(x @ params["layers"][0] + params["bias"]) * scale
    return {"out": hidden @ params["layers"][1], "pair": Pair(hidden.sum(-1), (x > 0).sum())}


def arguments(seed: int = 0, batch: int = 5) -> tuple[dict[str, Any], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    params = {"layers": [normal(3, 4), normal(4, 2)], "bias": normal(4)}
    return jax.tree.map(lambda t: t.requires_grad_(), params), normal(batch, 3).requires_grad_()


def as_jax(tree: Any) -> Any:
    return jax.tree.map(lambda t: jnp.array(t.detach().numpy()), tree)


def loss(outputs: dict[str, Any]) -> Any:
    return (outputs["out"] ** 2).sum() + 0.3 * outputs["pair"].left.sum()


def test_values_and_gradients_are_those_of_jax_for_pytrees_and_keywords() -> None:
    params, x = arguments()
    scale = torch.tensor(1.7, requires_grad=True)
    outputs = jax2torch(network)(params, x, scale=scale)
    assert isinstance(outputs["pair"], Pair)
    assert outputs["pair"].right.dtype == torch.int32
    assert not outputs["pair"].right.requires_grad
    loss(outputs).backward()

    def plain(params: Any, x: Any, scale: Any) -> Any:
        return loss(network(params, x, scale=scale))

    expected = jax.grad(plain, argnums=(0, 1, 2))(as_jax(params), as_jax(x), as_jax(scale))
    for mine, theirs in zip(jax.tree.leaves((params, x, scale)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine.grad.numpy(), theirs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        outputs["out"].detach(), network(as_jax(params), as_jax(x), scale=1.7)["out"], rtol=1e-5
    )


@pytest.mark.parametrize("shape", [(), (0, 3), (1, 1), (7,), (2, 3, 4, 5)])
def test_shapes_including_empty_and_scalar(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    y = jax2torch(lambda x: jnp.sin(x) * 2)(x)
    assert y.shape == shape
    y.sum().backward()
    torch.testing.assert_close(x.grad, 2 * torch.cos(x.detach()))


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float16, torch.bfloat16, torch.complex64],
    ids=lambda d: str(d).split(".")[1],
)
def test_dtypes_and_their_gradients_match_torch(dtype: torch.dtype) -> None:
    x = (torch.arange(1, 7).reshape(2, 3) / 4).to(dtype)
    if dtype.is_complex:
        x = x * (1 - 2j)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = jax2torch(lambda x: x * x * x)(mine), theirs * theirs * theirs
    assert y.dtype == dtype
    torch.testing.assert_close(y, z)
    (y.abs() ** 2).sum().backward()
    (z.abs() ** 2).sum().backward()
    assert mine.grad.dtype == dtype
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=2e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_integers_and_bools_come_through_beside_gradients(dtype: torch.dtype) -> None:
    index = torch.tensor([1, 0, 1]).to(dtype)
    weights = torch.randn(2, 4, requires_grad=True)
    y, shifted = jax2torch(lambda w, i: (w[i.astype(int)], i))(weights, index)
    y.sum().backward()
    torch.testing.assert_close(weights.grad, torch.tensor([[1.0] * 4, [2.0] * 4]))
    assert shifted.to(dtype).equal(index)


def test_awkward_memory_sliced_expanded_transposed_and_stride_zero_gradients() -> None:
    base = torch.randn(6, 8)
    for x in (base[::2, 1:7:2], base.T, base[0].expand(3, 8), torch.randn(4, 1).expand(4, 5)):
        x = x.detach().requires_grad_()
        y = jax2torch(lambda x: x * x)(x)
        torch.testing.assert_close(y, x * x)
        y.backward(torch.ones(()).expand(y.shape))
        torch.testing.assert_close(x.grad, 2 * x.detach())


def test_one_trace_per_shape_and_static_value() -> None:
    traces = []

    def power(x: Any, exponent: int, scale: float) -> Any:
        traces.append((x.shape, exponent))
        return scale * x**exponent

    torch_power = jax2torch(power)
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    for step in range(5):
        y = torch_power(x, exponent=3, scale=1.0 + step)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, (1.0 + step) * 3 * x.detach() ** 2)
    assert len(traces) == 1
    torch_power(x, exponent=2, scale=1.0)
    assert len(traces) == 2
    torch_power(torch.ones(3, requires_grad=True), exponent=2, scale=1.0)
    assert len(traces) == 3
    with torch.no_grad():
        torch_power(x, exponent=2, scale=1.0)
        torch_power(x, exponent=2, scale=3.0)
    assert len(traces) == 4


def test_true_and_one_are_different_static_values() -> None:
    fn = jax2torch(lambda x, flag: x + 1 if flag is True else x - 1)
    assert fn(torch.zeros(()), True).item() == 1
    assert fn(torch.zeros(()), 1).item() == -1


def test_only_what_needs_a_gradient_gets_one_and_unused_outputs_count_as_zero() -> None:
    x, y = torch.randn(3, requires_grad=True), torch.randn(3)
    first, second = jax2torch(lambda x, y: (x * y, jnp.exp(x)))(x, y)
    assert first.requires_grad
    assert second.requires_grad
    first.sum().backward()
    torch.testing.assert_close(x.grad, y)
    assert y.grad is None


def test_backward_twice_with_a_kept_graph_adds_up() -> None:
    x = torch.tensor([0.5, 1.5], requires_grad=True)
    y = jax2torch(jnp.sin)(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    torch.testing.assert_close(x.grad, 2 * torch.cos(x.detach()))


def test_torch_and_jax_layers_compose_both_ways() -> None:
    layer = torch.nn.Linear(4, 4)
    x = torch.randn(3, 4, requires_grad=True)
    mine = layer(jax2torch(jnp.tanh)(layer(x))).pow(2).sum()
    (a,) = torch.autograd.grad(mine, x)
    (b,) = torch.autograd.grad(layer(torch.tanh(layer(x))).pow(2).sum(), x)
    torch.testing.assert_close(a, b)


def test_outputs_never_share_memory_with_inputs_or_with_each_other() -> None:
    x = torch.randn(4096, requires_grad=True)
    with torch.no_grad():
        first, second = jax2torch(lambda x: (x, x))(x)
    first.add_(1)
    torch.testing.assert_close(second, x.detach())
    # the residual of exp is its own output: an in-place write to the output must not change the gradient
    y = jax2torch(jnp.exp)(x)
    expected = y.detach().clone()
    y.detach().zero_()
    y.sum().backward()
    torch.testing.assert_close(x.grad, expected)
    a, b = jax2torch(lambda x: (x, x * 2))(x)
    a.detach().zero_()
    assert x.detach().abs().sum() > 0
    torch.testing.assert_close(b.detach(), 2 * x.detach())


def test_changing_an_argument_before_backward_is_torchs_own_error() -> None:
    x = torch.randn(4096, requires_grad=True)
    y = jax2torch(lambda x: x * x)(x)
    with torch.no_grad():
        x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_writing_in_place_right_after_a_call_never_reaches_it() -> None:
    fn = jax2torch(lambda x, w: jnp.tanh(x @ w) @ w)
    for trial in range(20):
        x, w = torch.full((256, 512), 0.01 * trial), torch.full((512, 512), 0.01, requires_grad=True)
        with torch.no_grad():
            expected = torch.tanh(x @ w) @ w
        y = fn(x, w)
        with torch.no_grad():
            acted = fn(x, w)
            x.fill_(float("nan"))
        torch.testing.assert_close(acted, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


def test_an_optimiser_step_right_after_backward_never_reaches_the_gradient() -> None:
    fn = jax2torch(lambda x, w: jnp.tanh(x @ w))
    x = torch.randn(128, 256)
    start = torch.randn(256, 256) / 16
    mine, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine_sgd, theirs_sgd = (torch.optim.SGD([p], lr=0.05) for p in (mine, theirs))
    for _ in range(15):
        for parameter, optimiser, forward in (
            (mine, mine_sgd, fn),
            (theirs, theirs_sgd, lambda x, w: torch.tanh(x @ w)),
        ):
            optimiser.zero_grad()
            forward(x, parameter).pow(2).mean().backward()
            optimiser.step()
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_float64_is_refused_by_name() -> None:
    params, x = arguments()
    params["layers"][1] = params["layers"][1].detach().double()
    with pytest.raises(TypeError, match=r"argument 0\['layers'\]\[1\] is float64.*torch.float32"):
        jax2torch(network)(params, x)
    with pytest.raises(TypeError, match="argument 'scale' is float64"):
        jax2torch(network)(arguments()[0], x, scale=torch.tensor(1.0, dtype=torch.float64))
    with pytest.raises(TypeError, match="complex128"):
        to_jax(torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(TypeError, match="numpy argument is float64"):
        jax2torch(lambda x, y: x + y)(x, np.zeros(3))


def test_float64_is_welcome_when_jax_computes_in_it() -> None:
    with jax.enable_x64(True):
        x = torch.linspace(0, 1, 5, dtype=torch.float64).requires_grad_()
        y = jax2torch(jnp.sin)(x)
        y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.float64
    torch.testing.assert_close(x.grad, torch.cos(x.detach()), rtol=1e-14, atol=0)


def test_int64_beyond_int32_is_refused_not_wrapped() -> None:
    with pytest.raises(OverflowError, match="beyond JAX's int32"):
        jax2torch(lambda x: x)(torch.tensor([1, 2**40]))
    assert jax2torch(lambda x: x)(torch.tensor([-(2**31), 2**31 - 1])).tolist() == [-(2**31), 2**31 - 1]


@pytest.mark.parametrize("graph_first", [True, False])
def test_derivatives_of_any_order_are_those_of_torch(graph_first: bool) -> None:
    x = torch.tensor([0.3, 0.7], requires_grad=True)
    y = jax2torch(jnp.sin)(x) if graph_first else jax2torch(jnp.sin)(x * 1.0)
    gradient = y
    for expected in (torch.cos, lambda x: -torch.sin(x), lambda x: -torch.cos(x)):
        (gradient,) = torch.autograd.grad(gradient.sum(), x, create_graph=True)
        torch.testing.assert_close(gradient, expected(x))


def test_second_derivatives_reach_the_outer_gradient_too() -> None:
    def penalty(square: Any, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        (slope,) = torch.autograd.grad((square(x) * w).sum(), x, create_graph=True)
        return slope.pow(2).sum()

    w, x = torch.tensor([2.0, 3.0], requires_grad=True), torch.tensor([0.5, -1.0], requires_grad=True)
    mine = torch.autograd.grad(penalty(jax2torch(lambda x: x**3), w, x), (w, x))
    theirs = torch.autograd.grad(penalty(lambda x: x**3, w, x), (w, x))
    torch.testing.assert_close(mine, theirs)


def test_an_unhashable_static_argument_is_named() -> None:
    def with_set(x: Any, names: set[str]) -> Any:
        return x

    with pytest.raises(TypeError, match=r"jax2torch\(with_set\).*unhashable.*pass it as a tensor"):
        jax2torch(with_set)(torch.zeros(1), {"a"})


def test_other_devices_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match="on meta: the bridge works on cpu and cuda"):
        jax2torch(lambda x: x)(torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match=r"different devices \(cpu, meta\).*tensor.to\(device\)"):
        jax2torch(lambda x, y: x + y)(torch.zeros(2), torch.zeros(2, device="meta"))
    monkeypatch.setattr(arrays, "_cuda_devices", lambda: 0)
    with pytest.raises(
        RuntimeError, match=r"jaxlib sees 0 CUDA devices.*pip install 'jax\[cuda12\]'.*device='cpu'"
    ):
        arrays.check_device(torch.device("cuda:0"), "features")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_values_gradients_and_device() -> None:
    params, x = arguments()
    move = lambda t: t.detach().cuda().requires_grad_()  # noqa: E731
    on_gpu, x_gpu = jax.tree.map(move, params), move(x)
    outputs = jax2torch(network)(on_gpu, x_gpu)
    assert outputs["out"].is_cuda
    loss(outputs).backward()
    loss(jax2torch(network)(params, x)).backward()
    for mine, theirs in zip(jax.tree.leaves((on_gpu, x_gpu)), jax.tree.leaves((params, x)), strict=True):
        torch.testing.assert_close(mine.grad.cpu(), theirs.grad, rtol=1e-3, atol=1e-4)


def test_module_names_trees_and_optimisation() -> None:
    params, x = arguments()
    module = JaxModule(as_jax(params))
    assert [name for name, _ in module.named_parameters()] == ["bias", "layers/0", "layers/1"]
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    fn = jax2torch(network)
    first = last = loss(fn(module.tree(), x.detach()))
    for _ in range(30):
        optimiser.zero_grad()
        last.backward()
        optimiser.step()
        last = loss(fn(module.tree(), x.detach()))
    assert last.item() < 0.3 * abs(first.item())


def test_module_does_not_alias_the_tree_it_was_made_from_or_snapshots() -> None:
    source = {"w": np.ones(4096, np.float32)}
    module = JaxModule(source)
    snapshot = module.snapshot()
    with torch.no_grad():
        module.tree()["w"].zero_()
    assert source["w"].sum() == snapshot["w"].sum() == 4096
    module.load_tree(snapshot)
    assert module.tree()["w"].sum().item() == 4096


def test_module_refuses_trees_that_do_not_fit() -> None:
    module = JaxModule({"w": np.ones(3, np.float32)})
    with pytest.raises(ValueError, match=r"parameter 'w' has shape \(4,\), expected \(3,\)"):
        module.load_tree({"w": np.ones(4, np.float32)})
    with pytest.raises(ValueError, match="structure"):
        module.load_tree({"v": np.ones(3, np.float32)})
    with pytest.raises(TypeError, match="parameter 'n' is int32"):
        JaxModule({"n": np.ones(3, np.int32)})


def test_prepared_is_computed_once_for_the_values_of_the_parameters() -> None:
    module = JaxModule({"w": np.ones(4096, np.float32)})
    prepare = jax.jit(lambda params: {"w": params["w"], "exp": jnp.exp(params["w"])})
    first = module.prepared(prepare)
    assert module.prepared(prepare) is first
    optimiser = torch.optim.SGD(module.parameters(), lr=1.0)
    module.tree()["w"].grad = torch.ones(4096)
    optimiser.step()
    assert float(first["w"].sum()) == 4096  # kept values are copies, never torch's memory
    assert float(module.prepared(prepare)["w"].sum()) == 0
    module.load_state_dict({"w": torch.full((4096,), 3.0)})
    assert float(module.prepared(prepare)["w"][0]) == 3
    module.load_tree({"w": np.full(4096, 4, np.float32)})
    assert float(module.prepared(prepare)["w"][0]) == 4
    again = module.prepared(prepare)
    module.eval()
    module.train()
    assert module.prepared(prepare) is again


def _polyak(module: JaxModule, value: float) -> None:
    torch.add(module.w.data.mul_(0.0), torch.full((64,), value), alpha=1.0, out=module.w.data)


def _one_number_by_numpy(module: JaxModule, value: float) -> None:
    module.w.detach().numpy()[63] = value


def _reused_address(module: JaxModule, value: float) -> None:
    torch.nn.utils.vector_to_parameters(torch.full((64,), value), module.parameters())


def _shared_vector(module: JaxModule, value: float) -> None:
    vector = module.__dict__.setdefault("vector", torch.zeros(64))
    torch.nn.utils.vector_to_parameters(vector, module.parameters())
    vector.fill_(value)  # the parameter is a view of it


def _replaced(module: JaxModule, value: float) -> None:
    module.w = torch.nn.Parameter(torch.full((64,), value))


def _other_strides(module: JaxModule, value: float) -> None:
    module.w.data = torch.full((64, 2), value)[:, 0]


def _swapped(module: JaxModule, value: float) -> None:
    torch.utils.swap_tensors(module.w, torch.nn.Parameter(torch.full((64,), value)))


@pytest.mark.parametrize("trained_between", [False, True])
@pytest.mark.parametrize(
    "write",
    [_polyak, _one_number_by_numpy, _reused_address, _shared_vector, _replaced, _other_strides, _swapped],
)
def test_prepared_is_never_of_other_values_however_they_were_written(
    write: Any, trained_between: bool
) -> None:
    module = JaxModule({"w": np.zeros(64, np.float32)})
    prepare = jax.jit(lambda params: params["w"] * 2)
    for value in (1.0, 2.0, 3.0, 2.0):
        if trained_between:
            unwatch(module.parameters())
        write(module, value)
        np.testing.assert_array_equal(module.prepared(prepare), 2 * module.w.detach().numpy())


def test_prepared_notices_another_shape_or_dtype() -> None:
    module = JaxModule({"w": np.zeros(4, np.float32)})
    prepare = jax.jit(lambda params: params["w"] + 1)
    module.prepared(prepare)
    module.w.data = torch.zeros(0)  # as sharding frees it
    assert module.prepared(prepare).shape == (0,)
    module.w.data = torch.zeros(4, dtype=torch.bfloat16)
    assert module.prepared(prepare).dtype == jnp.bfloat16


def test_prepared_holds_nan_as_it_is() -> None:
    module = JaxModule({"w": np.full(4, np.nan, np.float32)})
    prepare = jax.jit(lambda params: params["w"])
    assert module.prepared(prepare) is module.prepared(prepare)


def test_optimisers_take_prepared_parameters_for_their_own() -> None:
    """One kernel for all parameters, where torch's own would have one: it asks for their class by name."""
    module = JaxModule({"w": jnp.ones(3)})
    module.prepared(jax.jit(lambda params: params))
    parameters = list(module.parameters())
    assert type(parameters[0]) is not torch.nn.Parameter
    assert _default_to_fused_or_foreach(parameters, False, use_fused=True) == (True, False)


def test_training_works_on_torchs_own_parameters_which_are_watched_again_when_prepared() -> None:
    module = JaxModule({"w": jnp.ones(3)})
    prepare = jax.jit(lambda params: params)
    module.prepared(prepare)
    unwatch(module.parameters())
    assert type(module.w) is torch.nn.Parameter
    with torch.no_grad():
        module.w.add_(1)
    module.prepared(prepare)
    assert type(module.w) is not torch.nn.Parameter


def test_parameters_stand_where_xla_reads_them_in_place() -> None:
    module = JaxModule({"a": np.ones(3, np.float32), "b": np.ones((5, 7), np.float32)})
    assert [parameter.data_ptr() % 64 for parameter in module.parameters()] == [0, 0]


def test_module_survives_pickling_and_copying_with_its_cache_filled() -> None:
    module = JaxModule({"w": np.arange(4, dtype=np.float32)})
    prepare = jax.jit(lambda params: params["w"] * 2)
    module.prepared(prepare)
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(module), torch.load(buffer, weights_only=False)):
        with torch.no_grad():
            other.tree()["w"].add_(1)
        np.testing.assert_array_equal(other.prepared(prepare), [2, 4, 6, 8])
    np.testing.assert_array_equal(module.prepared(prepare), [0, 2, 4, 6])


def test_to_torch_and_back_without_a_copy() -> None:
    array = jnp.arange(1e5)
    tensor = to_torch(array)
    assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    assert to_jax(tensor).ctypes.data == tensor.data_ptr()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_, jnp.complex64])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_to_torch_keeps_dtypes_and_values_at_any_size(dtype: Any, size: int) -> None:
    array = jnp.arange(size).astype(dtype)
    tensor = to_torch(array)
    assert str(tensor.dtype) == f"torch.{jnp.dtype(dtype).name}"
    np.testing.assert_array_equal(tensor.to(torch.complex64).numpy(), np.asarray(array).astype(np.complex64))


def test_writing_to_a_small_result_leaves_jaxs_array_alone() -> None:
    array = jnp.zeros(3)
    to_torch(array).fill_(1.0)
    assert not array.any()


def test_buckets_hold_every_shape_without_waste_and_are_few() -> None:
    buckets = Buckets(max_waste=2.0)
    for rows in [*range(1, 300), *range(300, 0, -1)]:
        (bucket,) = buckets.fit(rows)
        assert rows <= bucket <= 2 * rows
    assert len(buckets.shapes) == 10  # 1, 2, 4, ..., 512


def test_a_bucket_serves_smaller_shapes_up_to_the_waste_it_may_cause() -> None:
    buckets = Buckets(max_waste=4.0, exact_first=True)
    assert buckets.fit(12) == (12,)
    assert buckets.fit(3) == (12,)
    assert buckets.fit(2) == (2,)
    assert buckets.fit(13) == (16,)


LEAK = """
import sys
import jax.numpy as jnp
import torch
from s5_adapters.torch_bridge import jax2torch

torch.set_num_threads(1)


def resident() -> float:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096 / 2**20


fn = jax2torch(lambda params, x: jnp.tanh(x @ params["w"]) + params["b"])
params = {"w": torch.randn(32, 32, requires_grad=True), "b": torch.randn(32, requires_grad=True)}
x = torch.randn(64, 32)


def calls(count: int) -> None:
    for _ in range(count):
        fn(params, x).sum().backward()
        with torch.no_grad():
            fn(params, x)


total = int(sys.argv[1])
calls(total // 5)
before = resident()
calls(total)
print(resident() - before)
"""


def leaked_mib(calls: int) -> float:
    command = [sys.executable, "-c", textwrap.dedent(LEAK), str(calls)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size from /proc")
def test_calls_leak_no_memory() -> None:
    # An array kept per call would add 8 KiB times 5,000: 40 MiB.
    assert leaked_mib(5_000) < 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident size from /proc")
def test_a_hundred_thousand_calls_leak_no_memory() -> None:
    assert leaked_mib(100_000) < 8
