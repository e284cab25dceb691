"""From a jaxpr to an ONNX graph: the primitives of one step of a policy.

Every value is either known now (a weight, or what is computed of weights alone) or an edge of the graph. What
is known is computed by JAX while the graph is built, so a graph holds prepared weights and nothing that
prepares them. A size is known too, or it is the batch's, which the graph reads off its first input.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from onnx import helper, numpy_helper

Value = Any
"""A known array (numpy), or the name of an edge (str)."""

_Handler = Callable[["Graph", Any, list[Value]], list[Value]]
_HANDLERS: Final[dict[str, _Handler]] = {}


class Graph:
    """An ONNX graph being built."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self._count = 0
        self._batch: str | None = None
        self._first_input = ""

    def model(self, closed: ClosedJaxpr, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        """Return a whole function's graph as ONNX's ``GraphProto``.

        Args:
            closed: the function; the leading axis of its first input is the batch.
            inputs: names for its inputs.
            outputs: names for its results.

        Raises:
            ValueError: a primitive without a counterpart; one line that names it.

        """
        self._first_input = inputs[0]
        results = self.inline(closed, list(inputs))
        for value, name in zip(results, outputs, strict=True):
            self.add("Identity", [value], name=name)
        self._drop_unused(outputs)
        used = {name for node in self.nodes for name in node.input}
        return helper.make_graph(
            self.nodes,
            "policy",
            [_described(name, aval) for name, aval in zip(inputs, closed.in_avals, strict=True)],
            [_described(name, aval) for name, aval in zip(outputs, closed.out_avals, strict=True)],
            [numpy_helper.from_array(a, name) for name, a in self.constants.items() if name in used],
        )

    def inline(self, closed: Any, arguments: Sequence[Value]) -> list[Value]:
        """Add a function's equations, and return its results."""
        jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
        known: dict[Any, Value] = {}
        known.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                aval: Any = atom.aval
                return np.asarray(atom.val, aval.dtype)
            return known[atom]

        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            known.update(zip(equation.outvars, self._apply(equation, values), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _apply(self, equation: Any, values: list[Value]) -> list[Value]:
        name = equation.primitive.name
        inner = next((equation.params[key] for key in _CALLS.get(name, ()) if key in equation.params), None)
        if inner is not None:
            return self.inline(inner, values)
        is_known = all(not isinstance(value, str) for value in values)
        if is_known and all(_is_static(out.aval.shape) for out in equation.outvars):
            results = equation.primitive.bind(*values, **equation.params)
            return [np.asarray(r) for r in (results if equation.primitive.multiple_results else [results])]
        handler = _HANDLERS.get(name)
        if handler is None:
            raise ValueError(f"onnx: the policy computes {name!r}, which has no counterpart in the export")
        return handler(self, equation, values)

    def add(
        self, operator: str, inputs: Sequence[Value], *, name: str | None = None, **attributes: Any
    ) -> str:
        """Add a node of one output, and return the output's name."""
        return self.add_many(operator, inputs, 1, names=None if name is None else [name], **attributes)[0]

    def add_many(
        self,
        operator: str,
        inputs: Sequence[Value],
        count: int,
        *,
        names: list[str] | None = None,
        **attributes: Any,
    ) -> list[str]:
        """Add a node, and return its outputs' names."""
        names = [self._fresh() for _ in range(count)] if names is None else names
        edges = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, edges, names, **attributes))
        return names

    def constant(self, value: Any) -> str:
        """Add an array, and return its name."""
        name = self._fresh()
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def shape(self, sizes: Sequence[Any]) -> Value:
        """Return a shape, int64: known, or with the batch's size in its place."""
        if _is_static(sizes):
            return _ints(sizes)
        if self._batch is None:
            self._batch = self.add("Shape", [self._first_input], start=0, end=1)
        parts = [_ints([size]) if _is_static([size]) else self._batch for size in sizes]
        return self.add("Concat", parts, axis=0)

    def reshape(self, value: Value, sizes: Sequence[Any]) -> str:
        """Add a reshape; one size at most is the batch's."""
        return self.add("Reshape", [value, _ints([s if _is_static([s]) else -1 for s in sizes])])

    def _fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _drop_unused(self, outputs: Sequence[str]) -> None:
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]


_CALLS: Final = {
    "jit": ("jaxpr",),
    "pjit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "checkpoint": ("jaxpr",),
    "remat2": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
}
"""Primitives that call a function, and where they hold it."""


def _is_static(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int | np.integer) for size in sizes)


def _ints(values: Any) -> np.ndarray[Any, Any]:
    return np.array([int(value) for value in values], np.int64)


def _onnx_type(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _described(name: str, aval: Any) -> Any:
    sizes = [int(size) if _is_static([size]) else "batch" for size in aval.shape]
    return helper.make_tensor_value_info(name, _onnx_type(aval.dtype), sizes)


def _handles(*names: str) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register


def _same_for(operator: str, *names: str) -> None:
    """Let an ONNX operator of the same meaning stand for primitives."""
    _handles(*names)(lambda graph, _, values: [graph.add(operator, values)])


for _operator, _names in {
    "Abs": ["abs"],
    "Add": ["add", "add_any"],
    "And": ["and"],
    "Cos": ["cos"],
    "Div": ["div"],
    "Equal": ["eq"],
    "Erf": ["erf"],
    "Exp": ["exp"],
    "Floor": ["floor"],
    "Greater": ["gt"],
    "GreaterOrEqual": ["ge"],
    "Less": ["lt"],
    "LessOrEqual": ["le"],
    "Log": ["log"],
    "Max": ["max"],
    "Min": ["min"],
    "Mul": ["mul"],
    "Neg": ["neg"],
    "Not": ["not"],
    "Or": ["or"],
    "Pow": ["pow"],
    "Sigmoid": ["logistic"],
    "Sign": ["sign"],
    "Sin": ["sin"],
    "Sqrt": ["sqrt"],
    "Sub": ["sub"],
    "Tanh": ["tanh"],
}.items():
    _same_for(_operator, *_names)


@_handles("name", "stop_gradient", "copy", "copy_p", "optimization_barrier", "reduce_precision")
def _identity(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return values


@_handles("ne")
def _not_equal(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Not", [graph.add("Equal", values)])]


@_handles("square")
def _square(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Mul", [values[0], values[0]])]


@_handles("integer_pow")
def _integer_pow(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    power, (x,) = equation.params["y"], values
    if power not in (2, 3):
        return [graph.add("Pow", [x, np.array(power, equation.invars[0].aval.dtype)])]
    product = graph.add("Mul", [x, x])
    return [product if power == 2 else graph.add("Mul", [product, x])]


@_handles("rsqrt")
def _rsqrt(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Reciprocal", [graph.add("Sqrt", values)])]


@_handles("log1p")
def _log1p(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    one = np.array(1, equation.invars[0].aval.dtype)
    return [graph.add("Log", [graph.add("Add", [values[0], one])])]


@_handles("is_finite")
def _is_finite(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    is_odd = graph.add("Or", [graph.add("IsInf", values), graph.add("IsNaN", values)])
    return [graph.add("Not", [is_odd])]


@_handles("clamp")
def _clamp(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    low, x, high = values
    return [graph.add("Min", [graph.add("Max", [x, low]), high])]


@_handles("select_n")
def _select(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    which, *cases = values
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise ValueError("onnx: the policy chooses between more than two, expected two")
    return [graph.add("Where", [which, cases[1], cases[0]])]


@_handles("convert_element_type")
def _convert(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Cast", values, to=_onnx_type(equation.params["new_dtype"]))]


@_handles("broadcast_in_dim")
def _broadcast(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    sizes, kept = equation.params["shape"], equation.params["broadcast_dimensions"]
    given = equation.invars[0].aval.shape
    placed: list[Any] = [1] * len(sizes)
    for size, axis in zip(given, kept, strict=True):
        placed[axis] = size
    value = values[0]
    if tuple(placed) != tuple(given):
        value = graph.reshape(value, placed)
    if tuple(placed) == tuple(sizes):
        return [value]
    # A size of 1 leaves an axis as it is, so the batch's own size is asked for only where it is new.
    wanted = [1 if has == size else size for has, size in zip(placed, sizes, strict=True)]
    return [graph.add("Expand", [value, graph.shape(wanted)])]


@_handles("reshape")
def _reshape(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.reshape(values[0], equation.params["new_sizes"])]


@_handles("squeeze")
def _squeeze(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Squeeze", [values[0], _ints(equation.params["dimensions"])])]


@_handles("transpose")
def _transpose(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Transpose", values, perm=list(map(int, equation.params["permutation"])))]


@_handles("concatenate")
def _concatenate(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    return [graph.add("Concat", values, axis=int(equation.params["dimension"]))]


@_handles("stack")
def _stack(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis = int(equation.params["axis"])
    return [graph.add("Concat", [graph.add("Unsqueeze", [v, _ints([axis])]) for v in values], axis=axis)]


@_handles("split")
def _split(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    sizes, axis = _ints(equation.params["sizes"]), int(equation.params["axis"])
    results: list[Value] = [*graph.add_many("Split", [values[0], sizes], len(sizes), axis=axis)]
    return results


@_handles("slice")
def _slice(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    params, given = equation.params, equation.invars[0].aval.shape
    strides = params["strides"] or [1] * len(given)
    cuts = [
        (axis, start, limit, stride)
        for axis, (start, limit, stride) in enumerate(
            zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        )
        if (start, limit, stride) != (0, given[axis], 1)
    ]
    if not cuts:
        return values
    axes, starts, limits, steps = map(_ints, zip(*cuts, strict=True))
    return [graph.add("Slice", [values[0], starts, limits, axes, steps])]


@_handles("gather")
def _gather(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Cut one slice out at a known place, as an unrolled loop's counter is."""
    x, where = values
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if isinstance(where, str) or where.ndim != 1 or numbers.operand_batching_dims:
        raise ValueError("onnx: the policy looks numbers up at places that it computes, expected known ones")
    axes = numbers.start_index_map
    given = equation.invars[0].aval.shape
    starts = [min(max(int(i), 0), given[axis] - sizes[axis]) for i, axis in zip(where, axes, strict=True)]
    limits = [start + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
    cut = graph.add("Slice", [x, _ints(starts), _ints(limits), _ints(axes)])
    dropped = numbers.collapsed_slice_dims
    return [graph.add("Squeeze", [cut, _ints(dropped)]) if dropped else cut]


@_handles("scatter")
def _scatter(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Put one slice in at a known place, as an unrolled loop does with a step's result."""
    x, where, update = values
    numbers, given = equation.params["dimension_numbers"], equation.invars[0].aval.shape
    inserted = numbers.inserted_window_dims
    if isinstance(where, str) or where.ndim != 1 or numbers.operand_batching_dims:
        raise ValueError("onnx: the policy writes to places that it computes, expected known ones")
    widths = list(equation.invars[2].aval.shape)
    for axis in inserted:
        widths.insert(axis, 1)
    if inserted:
        update = graph.add("Unsqueeze", [update, _ints(inserted)])
    places = zip(numbers.scatter_dims_to_operand_dims, map(int, where), strict=True)
    partial = [(int(axis), start) for axis, start in places if widths[axis] != given[axis]]
    if len(partial) > 1:
        raise ValueError("onnx: the policy writes a block within an array, expected whole slices")
    for axis, start in partial:
        cuts = [(0, start), (start + widths[axis], given[axis])]
        before, after = (
            [graph.add("Slice", [x, _ints([low]), _ints([high]), _ints([axis])])] if low < high else []
            for low, high in cuts
        )
        update = graph.add("Concat", [*before, update, *after], axis=axis)
    return [update]


@_handles("iota")
def _iota(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    raise ValueError("onnx: the policy counts along the batch, expected it to treat every row alike")


@_handles("cumsum")
def _cumsum(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    axis, reverse = np.array(equation.params["axis"], np.int64), int(equation.params["reverse"])
    return [graph.add("CumSum", [values[0], axis], reverse=reverse)]


@_handles("argmax")
def _argmax(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    found = graph.add("ArgMax", values, axis=int(equation.params["axes"][0]), keepdims=0)
    return [graph.add("Cast", [found], to=_onnx_type(equation.params["index_dtype"]))]


@_handles("reduce_sum", "reduce_max", "reduce_min")
def _reduce(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    operator = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
    axes = _ints(equation.params["axes"])
    return [graph.add(operator[equation.primitive.name], [values[0], axes], keepdims=0)]


@_handles("reduce_and", "reduce_or")
def _reduce_flags(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    operator = "ReduceMin" if equation.primitive.name == "reduce_and" else "ReduceMax"
    numbers = graph.add("Cast", values, to=_onnx_type(np.int32))
    reduced = graph.add(operator, [numbers, _ints(equation.params["axes"])], keepdims=0)
    return [graph.add("Cast", [reduced], to=_onnx_type(np.bool_))]


@_handles("dot_general")
def _dot_general(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (len(atom.aval.shape) for atom in equation.invars)
    if not left_batch and tuple(left_sum) == (left - 1,) and right == 2:
        x, matrix = values
        if tuple(right_sum) == (1,):
            matrix = graph.add("Transpose", [matrix], perm=[1, 0]) if isinstance(matrix, str) else matrix.T
        return [graph.add("MatMul", [x, matrix])]
    letters = iter(string.ascii_letters)
    left_axes, right_axes = [next(letters) for _ in range(left)], [next(letters) for _ in range(right)]
    for mine, other in [*zip(left_batch, right_batch, strict=True), *zip(left_sum, right_sum, strict=True)]:
        right_axes[other] = left_axes[mine]
    kept = [left_axes[axis] for axis in left_batch]
    kept += [left_axes[axis] for axis in range(left) if axis not in (*left_batch, *left_sum)]
    kept += [right_axes[axis] for axis in range(right) if axis not in (*right_batch, *right_sum)]
    equation_text = f"{''.join(left_axes)},{''.join(right_axes)}->{''.join(kept)}"
    return [graph.add("Einsum", values, equation=equation_text)]


@_handles("conv_general_dilated")
def _convolution(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    params, (x, kernel) = equation.params, values
    numbers = params["dimension_numbers"]
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise ValueError("onnx: the policy has a transposed convolution, expected a plain one")
    channels_first = graph.add("Transpose", [x], perm=list(map(int, numbers.lhs_spec)))
    weights = graph.add("Transpose", [kernel], perm=list(map(int, numbers.rhs_spec)))
    convolved = graph.add(
        "Conv",
        [channels_first, weights],
        strides=list(map(int, params["window_strides"])),
        dilations=list(map(int, params["rhs_dilation"])),
        pads=[int(low) for low, _ in params["padding"]] + [int(high) for _, high in params["padding"]],
        group=int(params["feature_group_count"]),
    )
    return [graph.add("Transpose", [convolved], perm=[int(axis) for axis in np.argsort(numbers.out_spec)])]


@_handles("scan")
def _scan(graph: Graph, equation: Any, values: list[Value]) -> list[Value]:
    """Unroll: a step of a policy loops over no more than a step."""
    params = equation.params
    consts, carried = params["num_consts"], params["num_carry"]
    held, carry, sequences = values[:consts], values[consts : consts + carried], values[consts + carried :]
    order = range(params["length"])
    rows: list[list[Value]] = []
    for i in reversed(order) if params["reverse"] else order:
        inputs = [graph.add("Gather", [x, np.array(i, np.int64)], axis=0) for x in sequences]
        results = graph.inline(params["jaxpr"], [*held, *carry, *inputs])
        carry, row = results[:carried], results[carried:]
        rows.append(row)
    if params["reverse"]:
        rows.reverse()
    stacked = [
        graph.add("Concat", [graph.add("Unsqueeze", [value, _ints([0])]) for value in column], axis=0)
        for column in zip(*rows, strict=True)
    ]
    return [*carry, *stacked]
