import numpy as np
import pytest
import torch
from test_packing import TEXTS, one_at_a_time, open_tiny, run, table

from pipeline.labelling import classifiers, gelu
from pipeline.labelling.filling import FilledClassifier
from pipeline.machine.devices import device
from pipeline.params.labelling import Labelling

LAYERS = 3
FUSED = {"bert": LAYERS, "roberta": LAYERS, "electra": LAYERS, "distilbert": LAYERS, "modernbert": 0}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operation_is_a_linear_layer_and_gelu(dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(*shape, generator=generator) for shape in ((3, 40, 64), (128, 64)))
    bias = torch.randn(128, generator=generator)
    given = [value.to(device(), dtype) for value in (inputs, weight / 8, bias)]
    found = gelu.linear_gelu(*given).float()
    expected = torch.nn.functional.gelu(torch.nn.functional.linear(*(value.float() for value in given)))
    assert found.shape == (3, 40, 128)
    assert (found - expected).abs().max() < (1e-3 if dtype == torch.float32 else 0.03)
    assert expected.abs().max() > 2, "the values must reach where GELU is not zero"


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", FUSED)
def test_logits_are_the_same_with_gelu_in_the_product(tmp_path, architecture: str):
    """On a CPU the operation computes the exact form; on a GPU the tanh form."""
    teacher = open_tiny(tmp_path, architecture, layers=LAYERS)
    expected = one_at_a_time(tmp_path, table(TEXTS))
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000), backend=None)
    assert gelu.fuse(classifier._model) == FUSED[architecture]
    assert gelu.fuse(classifier._model) == 0, "twice would compute GELU twice"
    limit = 1e-5 if device().type == "cpu" else 1e-3
    assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < limit


def test_another_function_is_left_as_it_is(tmp_path):
    teacher = open_tiny(tmp_path, "bert", hidden_act="relu")
    assert gelu.fuse(teacher.model) == 0


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_layers_are_traced_whole_with_it(tmp_path, monkeypatch, architecture: str):
    monkeypatch.setattr(classifiers, "_multiply_with_onednn", lambda model: None)
    torch._dynamo.reset()
    operations = []

    def keep(graph, inputs):
        operations.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    teacher = open_tiny(tmp_path, architecture)
    expected = one_at_a_time(tmp_path, table(TEXTS))
    gelu.fuse(teacher.model)
    classifier = FilledClassifier(teacher, Labelling(token_budget=1000), backend=keep, compile_after=0)
    assert np.abs(run(classifier, table(TEXTS), teacher.tokenizer) - expected).max() < 1e-5
    assert any("linear_gelu" in name for name in operations)
    assert not any("nn.functional.gelu" in name or "built-in function gelu" in name for name in operations)
