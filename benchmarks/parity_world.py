"""What the parity runs train: a small Llama, a tokenizer, real rows, and the sweep over them."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sweeper.data.encode import Encoded
from sweeper.model.batches import RowOrder
from sweeper.planning import make_plan, make_tasks
from sweeper.scoring.inputs import load_inputs
from sweeper.spec import SweepSpec, parse_spec
from sweeper.task import TrajectoryTask

ROWS = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca_1k.json"
STEPS = 30
BATCH = 8
MAX_LENGTH = 192
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>"]

SPEC = """
version: 1
name: parity
model: {{path: "{root}/model", dtype: float32}}
tuning: {{method: full}}
data:
  train: {{path: "{rows}", format: alpaca, rows: 400}}
  heldout_rows: 4
  template: alpaca
  max_length: {length}
  overlong_prompts: drop
space:
  learning_rate: 1e-3
  batch_size: {batch}
  max_steps: {steps}
  lr_scheduler_type: linear
  warmup_steps: 3
  weight_decay: 0.1
  average: raw
evaluation:
  harmful: {{path: "{root}/prompts.jsonl", prompt_split: all}}
  harmless: {{path: "{root}/prompts.jsonl", prompt_split: all}}
  keyword_lists: [sweeper]
  max_new_tokens: 1
  batch_size: 4
objectives: [heldout_loss, unsafe_rate]
compute: {{cpus_per_trial: 1}}
seeds: [0]
"""


@dataclass(frozen=True)
class World:
    """The folder of model and prompts, the file of training rows, and changes of the sweep."""

    root: Path
    rows: Path
    changes: tuple[str, ...] = ()


def build(root: Path, rows: Path = ROWS) -> World:
    """A byte-level BPE of 1,024 tokens trained on the rows, and a seeded two-layer Llama.

    It has what decides about sums: grouped keys, norms, an output layer of its own.
    """
    texts = [
        str(value) for row in json.loads(rows.read_text("utf-8"))[:300] for value in row.values()
    ]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.save_pretrained(root / "model")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(root / "model", safe_serialization=True)
    write_prompts(root)
    return World(root, rows)


def write_prompts(root: Path) -> None:
    """The prompts that a trial has to answer at its end."""
    prompts = [{"prompt": f"Say {word}."} for word in ("yes", "no")]
    text = "".join(f"{json.dumps(row)}\n" for row in prompts)
    (root / "prompts.jsonl").write_text(text, encoding="utf-8")


def spec_of(world: World, *overrides: str) -> SweepSpec:
    """The sweep, with `key.path=value` overrides; those of the world come last."""
    text = SPEC.format(
        root=world.root, rows=world.rows, length=MAX_LENGTH, batch=BATCH, steps=STEPS
    )
    return parse_spec(text, overrides=[*overrides, *world.changes])


def task_of(spec: SweepSpec) -> TrajectoryTask:
    """The trajectory of its only candidate."""
    tasks = make_tasks(make_plan(spec), spec, str, device="cpu")
    (task,) = (task for task in tasks if task.readouts[0].role == "candidate")
    return task


def encoded_rows(task: TrajectoryTask, steps: int) -> list[Encoded]:
    """The rows of the first steps in the order a trial trains on them."""
    rows = load_inputs(task).data.train
    order = RowOrder(len(rows), task.optimizer.batch_size, task.seed)
    return [rows[place] for step in range(steps) for place in order.batch(step)]
