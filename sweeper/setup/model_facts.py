"""What a new sweep has to know about its model, found without its weights in memory."""

from typing import Any, NamedTuple

from sweeper.data.chat_format import PromptFormatter
from sweeper.data.formats import Example
from sweeper.data.hub import MODEL, fetch, is_gated, is_hub_id
from sweeper.errors import DataError
from sweeper.model.architecture import check_architecture, empty_model
from sweeper.model.files import check_model
from sweeper.model.load import load_tokenizer
from sweeper.task import ALL_LINEAR, ModelSource, Tuning

_TEXTS = MODEL._replace(wanted=tuple(name for name in MODEL.wanted if "safetensors" not in name))
"""A hub model without its weights: they are downloaded by `prefetch`, not to write a file."""

UNLIMITED = 10**9

TEMPLATES = ("chat", "llama2", "alpaca")
"""Chat formats, best first."""


class ModelFacts(NamedTuple):
    """A model as a sweep uses it.

    `kind` is its `model_type`, `dtype` that of its checkpoint, `window` its context in tokens (None where
    its configuration has no limit), `targets` the linear layers inside its blocks. `gated` is None where
    the hub cannot be asked.
    """

    path: str
    kind: str
    parameters: int
    dtype: str
    window: int | None
    targets: tuple[str, ...]
    gated: bool | None
    has_template: bool
    tokenizer: Any


def model_facts(path: str) -> ModelFacts:
    """Look at a model: a local folder, or a hub id, of which everything but the weights is downloaded.

    Raises:
        ModelError: not a model, or one that cannot be trained; see `model.files.check_model` and
            `model.architecture.check_architecture`.
    """
    hub = is_hub_id(path)
    source = ModelSource(path=str(fetch(path, None, _TEXTS)) if hub else path)
    headers = None if hub else check_model(source)
    window, _ = check_architecture(
        source, Tuning("lora", lora_target_modules=(ALL_LINEAR,)), headers
    )
    model = empty_model(source)
    linear = [name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)]
    tokenizer = load_tokenizer(source)
    tokenizer.model_max_length = UNLIMITED  # Long rows are measured, not warned about.
    return ModelFacts(
        path=path,
        kind=str(model.config.model_type),
        parameters=sum(weight.numel() for weight in model.parameters()),
        dtype=str(model.config.dtype or "float32").removeprefix("torch."),
        window=window,
        targets=tuple(dict.fromkeys(name for name in linear if name != "lm_head")),
        gated=is_gated(path) if hub else False,
        has_template=tokenizer.chat_template is not None,
        tokenizer=tokenizer,
    )


def _is_linear(part: object) -> bool:
    return type(part).__name__ == "Linear"


def choose_template(model: ModelFacts, examples: list[Example]) -> tuple[str, str]:
    """The first chat format that takes all examples, and why not a better one ("" for `chat`).

    Raises:
        DataError: none does; of the last one.
    """
    reasons: list[str] = []
    for name in TEMPLATES:
        if name == "llama2" and not any(example.before for example in examples):
            continue  # Alpaca's format says more to a model without a template.
        try:
            formatter = PromptFormatter(model.tokenizer, name, None)
            for example in examples:
                formatter.row(example)
        except DataError as error:
            if name == TEMPLATES[-1]:
                raise
            reasons.append(str(error).partition(";")[0])
            continue
        return name, reasons[0] if reasons else ""
    raise AssertionError("the last format raises or is taken")
