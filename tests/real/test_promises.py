"""The promises of exactness on a real Llama: in `make test`, in about two minutes."""

from typing import NamedTuple

import pytest
import torch
from peft import PeftModel
from support.smollm2 import Measurements
from support.smollm2_sweep import candidates, measure, spec_of
from support.trials import run_together
from support.world import World
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from sweeper.analysis import find_front
from sweeper.export.weights import export_weights
from sweeper.model.load import load_model, load_tokenizer
from sweeper.scoring.generate import Generator, Request
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import SweepSpec
from sweeper.store.folder import RunFolder
from sweeper.store.records import TrialRecord
from sweeper.sweep.verify import verify
from sweeper.task import ModelSource, TrajectoryTask

pytestmark = pytest.mark.slow

NEW = 16
HARMLESS = ("What is the capital of France?", "Name a fruit.", "Count from one to five, please.")


class Measured(NamedTuple):
    """A run of the first of two trajectories, trained by itself; `tasks` are both."""

    folder: RunFolder
    spec: SweepSpec
    tasks: list[TrajectoryTask]
    records: dict[str, TrialRecord]


@pytest.fixture(scope="module")
def measured(smollm2: World, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    spec = spec_of(smollm2)
    tasks = candidates(spec)
    assert len(tasks) == 2
    folder, records = measure(tasks[:1], tmp_path_factory.mktemp("run"))
    return Measured(folder, spec, tasks, {record.config_id: record for record in records})


def test_responses_are_those_of_transformers(smollm2: World, measurements: Measurements) -> None:
    torch.set_num_threads(1)
    source = ModelSource(str(smollm2.model), dtype="float32")
    model, tokenizer = load_model(source, torch.device("cpu")), load_tokenizer(source)
    requests = []
    for content in HARMLESS:
        talk = [{"role": "user", "content": content}]
        text = tokenizer.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(str(text), add_special_tokens=False)["input_ids"]
        requests.append(Request(tuple(map(int, ids))))
    (found,) = Generator(tokenizer, requests, max_new_tokens=NEW, batch_size=8).answer(model)
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=NEW,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    for response, request in zip(found, requests, strict=True):
        prompt = torch.tensor([request.tokens])
        output = model.generate(prompt, generation_config=settings)  # type: ignore[operator]
        expected = output[0, len(request.tokens) :].tolist()
        assert response.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert response.tokens == len(expected)
    assert "Paris" in found[0].text
    assert min(response.tokens for response in found) < NEW  # One of them ends by itself.
    measurements.note("responses_equal_generate", equal=len(found), of=len(requests))


def test_what_shared_a_path_equals_what_trains_alone(
    measured: Measured, measurements: Measurements
) -> None:
    found = list(verify(measured.folder, measured.spec, sample=3))
    assert len(found) == 3
    for item in found:
        assert item.exact and item.bit_equal and item.responses_equal and item.holds
        assert item.shared_with >= 3
    measurements.note(
        "shared_equals_alone",
        bit_equal=sum(item.bit_equal for item in found),
        of=len(found),
        largest_difference_of_a_metric=max(item.difference for item in found),
    )


def test_what_trains_side_by_side_equals_what_trains_alone(
    measured: Measured, tmp_path_factory: pytest.TempPathFactory, measurements: Measurements
) -> None:
    together = run_together(measured.tasks, tmp_path_factory.mktemp("pack"))
    assert together.keys() > measured.records.keys()
    largest = 0.0
    for key, alone in measured.records.items():
        record = together[key]
        assert len(record.provenance["shared"]["trained_with"]) == 1
        for name, metric in record.metrics.items():
            assert (metric.k, metric.n) == (alone.metrics[name].k, alone.metrics[name].n)
            apart = abs(metric.value - alone.metrics[name].value)
            largest = max(largest, apart / max(abs(alone.metrics[name].value), 1e-12))
    assert largest < 1e-5
    measurements.note(
        "packs_equal_alone", readouts=len(measured.records), largest_difference=largest
    )


def test_an_export_gives_the_measured_numbers(
    measured: Measured, tmp_path_factory: pytest.TempPathFactory, measurements: Measurements
) -> None:
    front = find_front(list(measured.records.values()), measured.spec)
    item = max(
        (i for i in front.candidates if i.config["average"] == "ema(0.9)"),
        key=lambda i: (i.config["learning_rate"], i.config["max_steps"]),
    )
    out = tmp_path_factory.mktemp("export")
    exported = export_weights(measured.folder, measured.spec, item, out)
    assert exported.same
    base = AutoModelForCausalLM.from_pretrained(measured.spec.model.path, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(exported.folder)).merge_and_unload().eval()
    assert AutoTokenizer.from_pretrained(exported.folder).chat_template
    inputs = load_inputs(measured.tasks[0])
    total, count = 0.0, 0
    for row in map(inputs.encoder.example, inputs.data.heldout):
        labels = [-100] * len(row.prompt) + list(row.completion)
        with torch.no_grad():
            ids = torch.tensor([row.prompt + row.completion])
            loss = model(ids, labels=torch.tensor([labels])).loss
        total, count = total + float(loss) * len(row.completion), count + len(row.completion)
    recorded = item.records[0].metrics["heldout_loss"]
    assert count == recorded.n
    assert total / count == pytest.approx(recorded.value, rel=1e-5)
    measurements.note(
        "export_loaded_back", heldout_loss=recorded.value, by_transformers=total / count
    )
