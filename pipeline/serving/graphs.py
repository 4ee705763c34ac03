"""Changes to an ONNX graph after the export from torch: reproducible bytes, weights that can be quantised, precomputed products of word vectors."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

TABLE_BYTES = 2**27
"""The largest table of precomputed products (28,000 words of an LSTM with 150 units in each direction)."""


def tidied(model: Any) -> Any:
    """Remove build metadata, so that the same student gives the same bytes, aliases of weights, and unused LSTM outputs.

    The two sentences of a pair share their weights. The exporter gives the second sentence aliases (Identity nodes), and an aliased
    weight is not quantised. An LSTM output that nothing reads loses its name, so that it is not computed.
    """
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    second = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input[0] in weights
    }
    kept = [node for node in graph.node if node.output[0] not in second]
    for node in kept:
        node.input[:] = [second.get(name, name) for name in node.input]
        node.doc_string = ""
        del node.metadata_props[:]
    read = {name for node in kept for name in node.input} | {output.name for output in graph.output}
    for node in kept:
        if node.op_type == "LSTM":
            node.output[:] = [name if name in read else "" for name in node.output]
    del graph.node[:]
    graph.node.extend(kept)
    model.doc_string = ""
    return model


def own_lstm_weights(model: Any) -> Any:
    """Give each LSTM its own copy of the weights: onnxruntime 1.32 transposes shared weights once per LSTM that uses them."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    taken: set[str] = set()
    for node in graph.node:
        if node.op_type == "LSTM":
            for i in (1, 2):
                name = node.input[i]
                if name in taken:
                    copy = graph.initializer.add()
                    copy.CopyFrom(weights[name])
                    copy.name = node.input[i] = f"{name}_{len(taken)}"
                taken.add(node.input[i])
    return model


def shared_lstm_weights(model: Any) -> Any:
    """Undo `own_lstm_weights` after quantisation: keep one of equal LSTM weights."""
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    first: dict[bytes, str] = {}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLSTM":
            for i in (1, 2):
                weight = weights[node.input[i]]
                content = str(list(weight.dims)).encode() + weight.raw_data
                node.input[i] = first.setdefault(content, weight.name)
                if node.input[i] != weight.name:
                    graph.initializer.remove(weight)
    return model


def tabled(model: Any) -> Any:
    """Replace an LSTM's input product by a table look-up for batches of few words.

    Nearly all arithmetic of an LSTM that reads word vectors is its input product, which is the same for every occurrence of a word. The
    graph gets

        table = vectors @ W.T     # [V, 8 * hidden], from constants: onnxruntime computes it when it opens the file, whose size stays the same

    ONNX's LSTM always has an input product. So the table's rows for the n words of a batch become the weights, and the input of word i is
    the i-th unit vector: the product is n wide instead of as wide as the vectors, and gives the table's rows exactly. That is faster where
    n is small, so an `If` uses the original operator for batches with more words than half the width of the vectors.

    :param model: The network; changed in place. An LSTM that does not read word vectors, or whose table is larger than TABLE_BYTES, is
        unchanged.
    """
    from onnx import helper

    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes: list[Any] = []
    tables: dict[tuple[str, ...], tuple[str, str]] = {}  # the two sentences of a pair share one
    for node in graph.node:
        sources, ids = _looked_up(node, makers, weights)
        dims = weights[node.input[1]].dims if sources else []  # directions, 4 * hidden, width
        if not sources or 4 * dims[0] * dims[1] * weights[sources[0]].dims[0] > TABLE_BYTES:
            nodes.append(node)
            continue
        if (key := (*sources, node.input[1])) not in tables:
            vectors, table = (f"{name}{len(tables)}" for name in ("vectors", "table"))
            nodes += [
                helper.make_node("Concat", sources, [vectors], axis=1),
                _constant(f"{table}_order", np.array([-1, dims[2]])),
                helper.make_node("Reshape", [node.input[1], f"{table}_order"], [f"{table}_rows"]),
                helper.make_node("Transpose", [f"{table}_rows"], [f"{table}_columns"], perm=[1, 0]),
                helper.make_node("MatMul", [vectors, f"{table}_columns"], [table]),
            ]
            tables[key] = vectors, table
        nodes += _either(node, *tables[key], ids, list(dims))
    outputs = {output.name for output in graph.output}
    while len(read := _read(nodes, outputs)) < len(nodes):  # without the original look-ups
        nodes = read
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _looked_up(node: Any, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the names of the constants [V, d] whose rows, concatenated, are an LSTM's input, and of the ids; no names if there are none."""
    if node.op_type != "LSTM" or node.input[1] not in weights:
        return [], ""
    given: Any = makers.get(node.input[0])
    parts: list[Any] = [given]
    if given is not None and given.op_type == "Concat":
        parts = [makers.get(name) for name in given.input]
    for part in parts:
        if part is None or part.op_type != "Gather" or part.attribute or part.input[1] != parts[0].input[1]:
            return [], ""
        if part.input[0] not in weights or len(weights[part.input[0]].dims) != 2:
            return [], ""
    sources = [part.input[0] for part in parts]
    # The input is [L, B, d]: with any other width, the vectors were concatenated along another axis.
    alike = sum(weights[name].dims[1] for name in sources) == weights[node.input[1]].dims[2]
    return (sources, parts[0].input[1]) if alike else ([], "")


def _either(lstm: Any, vectors: str, table: str, ids: str, dims: list[int]) -> list[Any]:
    """Return an LSTM [directions, 4 * hidden, width] as an If: with the table for few words, unchanged for many."""
    from onnx import TensorProto, helper

    directions, gates, width = dims
    outputs = [name for name in lstm.output if name]
    first = outputs[0]

    def named(what: str) -> str:
        return f"{first}/{what}"

    def branch(what: str, before: list[Any], given: str, weight: str) -> Any:
        inner = type(lstm)()
        inner.CopyFrom(lstm)
        inner.name = named(what)
        inner.input[:2] = [given, weight]
        inner.output[:] = [name and f"{name}/{what}" for name in lstm.output]
        found = [helper.make_tensor_value_info(f"{name}/{what}", TensorProto.FLOAT, None) for name in outputs]
        return helper.make_graph([*before, inner], named(what), [], found)

    few = [
        _constant(named("all"), np.array([-1])),
        helper.make_node("Reshape", [ids, named("all")], [named("words")]),
        helper.make_node("Gather", [table, named("words")], [named("rows")]),
        helper.make_node("Transpose", [named("rows")], [named("columns")], perm=[1, 0]),
        _constant(named("split"), np.array([directions, gates, -1])),
        helper.make_node("Reshape", [named("columns"), named("split")], [named("weights")]),
        helper.make_node("Concat", [named("n"), named("n")], [named("square")], axis=0),
        helper.make_node("ConstantOfShape", [named("square")], [named("zeros")]),
        helper.make_node("EyeLike", [named("zeros")], [named("unit")]),
        helper.make_node("Shape", [ids], [named("shape")]),
        helper.make_node("Concat", [named("shape"), named("n")], [named("each")], axis=0),
        helper.make_node("Reshape", [named("unit"), named("each")], [named("given")]),
    ]
    many = [helper.make_node("Gather", [vectors, ids], [named("vectors")])]
    return [
        helper.make_node("Size", [ids], [named("size")]),
        _constant(named("first"), np.array([1])),
        helper.make_node("Reshape", [named("size"), named("first")], [named("n")]),
        _constant(named("most"), np.array([width // 2])),
        helper.make_node("LessOrEqual", [named("n"), named("most")], [named("is few")]),
        helper.make_node(
            "If",
            [named("is few")],
            outputs,
            then_branch=branch("few", few, named("given"), named("weights")),
            else_branch=branch("many", many, named("vectors"), lstm.input[1]),
        ),
    ]


def _constant(name: str, value: Any) -> Any:
    from onnx import helper, numpy_helper

    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def _read(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """Return the nodes with an output that a node, a branch or the caller reads."""
    read = outputs | {name for node in _with_inner(nodes) for name in node.input}
    return [node for node in nodes if read.intersection(node.output)]


def _with_inner(nodes: list[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_inner(list(attribute.g.node))
