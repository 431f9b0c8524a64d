"""Model dimensions, read from config.json, and the resulting parameter counts."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import ModelError
from sweeper.task import ALL_LINEAR, Tuning

FAMILIES = ("llama", "mistral", "qwen2")
"""The `model_type`s with exact parameter counts: all have Llama blocks, Qwen2 with some biases."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The dimensions of a decoder-only model. `head_dim` is per attention head.

    `output_bias`: whether `attention_bias` includes a bias of the output projection. Models that are not
    built of Llama blocks state `counted`, the number of their weights, and `linear`, the linear layers of a
    block as (name, inputs, outputs), and `extra_norms`, the values per token that its norms beyond Llama's
    two read; see `model.shape`.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    output_bias: bool = True
    counted: int | None = None
    linear: tuple[tuple[str, int, int], ...] = ()
    extra_norms: int = 0

    @property
    def query_width(self) -> int:
        """The width of the queries and of the attention output, per token."""
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        """The width of the keys, and of the values, of one layer, per token."""
        return self.kv_heads * self.head_dim

    @property
    def linear_layers(self) -> dict[str, tuple[int, int]]:
        """The linear layers of one block: name -> (inputs, outputs)."""
        if self.linear:
            return {name: (inputs, outputs) for name, inputs, outputs in self.linear}
        h, q, kv, i = self.hidden, self.query_width, self.key_width, self.intermediate
        attention = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
        return {**attention, "gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}

    @property
    def parameters(self) -> int:
        """The number of weights, as in transformers."""
        if self.counted is not None:
            return self.counted
        linear = self.linear_layers
        block = sum(inputs * outputs for inputs, outputs in linear.values()) + 2 * self.hidden
        for name, (_, outputs) in linear.items():
            biased = self.mlp_bias if name in _MLP else self.attention_bias
            biased = biased and (name != "o_proj" or self.output_bias)
            block += outputs * biased
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * block + tables + self.hidden

    @property
    def matmul_parameters(self) -> int:
        """Weights in matrix products: all but an untied input embedding, which is a look-up."""
        return self.parameters - (0 if self.tied else self.vocabulary * self.hidden)

    def targets(self, tuning: Tuning) -> tuple[str, ...]:
        """The names of the linear layers of one block that get a LoRA adapter.

        Raises:
            ModelError: a target that a Llama block does not have.
        """
        if tuning.lora_target_modules == (ALL_LINEAR,):
            return tuple(self.linear_layers)
        names = tuple(target.rpartition(".")[2] for target in tuning.lora_target_modules)
        for name, target in zip(names, tuning.lora_target_modules, strict=True):
            if name not in self.linear_layers:
                raise ModelError(
                    f"the cost model does not know the linear layer `{target}`; known layers: "
                    f"{', '.join(self.linear_layers)}",
                    code="model.unknown_layer",
                    layer=target,
                )
        return names

    def adapted(self, tuning: Tuning) -> list[tuple[int, int]]:
        """(inputs, outputs) of every linear layer of one block that gets a LoRA adapter.

        Raises:
            ModelError: see `targets`.
        """
        return [self.linear_layers[name] for name in self.targets(tuning)]

    def trainable(self, tuning: Tuning) -> int:
        """The number of trained weights: all, or r * (inputs + outputs) for each adapter.

        DoRA adds one magnitude per output.

        Raises:
            ModelError: see `adapted`.
        """
        if tuning.method == "full":
            return self.parameters
        sizes = self.adapted(tuning)
        block = tuning.lora_r * sum(inputs + outputs for inputs, outputs in sizes)
        block += sum(outputs for _, outputs in sizes) if tuning.use_dora else 0
        return self.layers * block


_MLP = ("gate_proj", "up_proj", "down_proj")


def read_shape(path: str, revision: str | None = None) -> ModelShape:
    """Read the shape from a local model folder, or from the local hub cache. Nothing is downloaded.

    Raises:
        ModelError: no config.json, or the model is not of a supported family.
    """
    config_path = _config_file(path, revision)
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot read {config_path} as JSON: {error}", code="model.unreadable", path=config_path
        ) from None
    if not isinstance(config, dict) or config.get("model_type") not in FAMILIES:
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise ModelError(
            f"{config_path}: model_type is {kind!r}, but the cost model supports only "
            f"{', '.join(FAMILIES)}",
            code="model.unsupported",
            path=config_path,
            model_type=kind,
        )
    return shape_of(config, str(config_path))


def shape_of(config: Mapping[str, Any], source: str = "config") -> ModelShape:
    """The shape in a Llama's configuration, under the names of `transformers.LlamaConfig`.

    Raises:
        ModelError: a needed key is missing or no whole number.
    """
    qwen = config.get("model_type") == "qwen2"  # Biases by its code, not by its configuration.
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return ModelShape(
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            intermediate=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            vocabulary=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
            attention_bias=qwen or bool(config.get("attention_bias", False)),
            mlp_bias=bool(config.get("mlp_bias", False)),
            output_bias=not qwen,
        )
    except KeyError as error:
        raise ModelError(
            f"{source}: the key {error} is missing",
            code="model.unreadable",
            path=source,
            key=error.args[0],
        ) from None
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"{source}: not the shape of a Llama: {error}", code="model.unreadable", path=source
        ) from None


def hub_cache() -> Path:
    """Where models and data sets of the hub are kept, as `huggingface_hub` works it out."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache) / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _config_file(path: str, revision: str | None) -> Path:
    """The config.json of a folder, or the newest one the hub cache holds for an id and revision."""
    if Path(path).is_dir():
        found = Path(path) / "config.json"
        if not found.is_file():
            raise ModelError(
                f"{path}: no config.json, so its size is unknown", code="model.not_found", path=path
            )
        return found
    hub = hub_cache()
    model = hub / f"models--{path.replace('/', '--')}"
    name = revision or "main"
    reference = model / "refs" / name
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else name
    found = model / "snapshots" / commit / "config.json"
    if not found.is_file():
        raise ModelError(
            f"{path}: no local folder and not in the hub cache {hub}, so its size is unknown; "
            "run `sweeper prefetch SPEC`, or give a local folder as model.path",
            code="model.not_cached",
            path=path,
        )
    return found
