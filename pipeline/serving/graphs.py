"""What is done to an ONNX graph after torch wrote it: the same bytes each time, weights that can be quantised, word vectors multiplied beforehand."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

TABLE_BYTES = 2**27
"""The largest table of multiplied word vectors that is made (28,000 words of an LSTM with 150 units in each direction)."""


def tidied(model: Any) -> Any:
    """Remove what tells where and how the file was made, so that the same student gives the same bytes, and second names of weights.

    A pair's two sentences go through the same weights; the exporter names them anew for the second (by an Identity), and what has a
    second name is not known as a weight to quantise. An LSTM's outputs that nothing reads lose their names, so that they are not made.
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
    """Give each LSTM weights of its own: onnxruntime 1.32 turns an LSTM's weights around once for each LSTM that has them."""
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
    """Undo `own_lstm_weights` once they are quantised: of equal weights of LSTMs keep one."""
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
    """Let a bidirectional LSTM that reads word vectors look up, for a few words, what its input weights make of each word.

    Nearly all of such an LSTM's arithmetic is its input product, and a word's is the same wherever it stands. The graph gets

        table = vectors @ W.T     # [V, 8 * hidden], of constants alone: onnxruntime works it out when it opens the file, which grows by nothing

    ONNX's LSTM has no form without an input product. So the table's rows of n words become the weights, and word i's input is the i-th
    unit vector: the product is n wide and not as wide as the vectors, and gives the table's rows exactly. That pays where n is small, so an `If`
    leaves batches of more than half as many words as the vectors are wide to the operator as it was.

    :param model: The network; it is changed in place. What has no such LSTM, or a table of more than TABLE_BYTES, stays as it is.
    """
    from onnx import helper

    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    nodes: list[Any] = []
    tables: dict[tuple[str, ...], tuple[str, str]] = {}  # a pair's two sentences share one
    for node in graph.node:
        sources, ids = _looked_up(node, makers, weights)
        if not sources or _table_bytes(weights[node.input[1]], weights[sources[0]]) > TABLE_BYTES:
            nodes.append(node)
            continue
        if (key := (*sources, node.input[1])) not in tables:
            vectors, table = (f"{name}{len(tables)}" for name in ("vectors", "table"))
            nodes += [
                helper.make_node("Concat", sources, [vectors], axis=1),
                _constant(f"{table}_order", np.array([-1, weights[node.input[1]].dims[2]])),
                helper.make_node("Reshape", [node.input[1], f"{table}_order"], [f"{table}_rows"]),
                helper.make_node("Transpose", [f"{table}_rows"], [f"{table}_columns"], perm=[1, 0]),
                helper.make_node("MatMul", [vectors, f"{table}_columns"], [table]),
            ]
            tables[key] = vectors, table
        nodes += _either(node, *tables[key], ids, list(weights[node.input[1]].dims))
    outputs = {output.name for output in graph.output}
    while unread := _unread(nodes, outputs):  # the look-ups that were there
        nodes = [node for node in nodes if id(node) not in unread]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _looked_up(node: Any, makers: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[list[str], str]:
    """Return the names of the constants [V, d] in which an LSTM's input is looked up, side by side, and of the ids; no names if it is not."""
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
    # The input is [L, B, d], so what is not the width of the vectors side by side was put together along another axis.
    alike = sum(weights[name].dims[1] for name in sources) == weights[node.input[1]].dims[2]
    return (sources, parts[0].input[1]) if alike else ([], "")


def _table_bytes(weight: Any, vectors: Any) -> int:
    directions, gates, _ = weight.dims
    return int(4 * directions * gates * vectors.dims[0])


def _either(lstm: Any, vectors: str, table: str, ids: str, dims: list[int]) -> list[Any]:
    """Return an LSTM [directions, 4 * hidden, width] as an If: with the table where there are few words, and as it was where there are many."""
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


def _unread(nodes: list[Any], outputs: set[str]) -> set[int]:
    """Return which nodes, by their ids in Python, make nothing that another or a branch of another reads."""
    read = outputs | {name for node in _with_inner(nodes) for name in node.input}
    return {id(node) for node in nodes if not read.intersection(node.output)}


def _with_inner(nodes: list[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _with_inner(list(attribute.g.node))
