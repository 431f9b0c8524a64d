"""The same commands on real rows: Alpaca to train on, AdvBench and XSTest prompts to answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.world import build_model

from sweeper.runs.run import open_run

SHARED = Path(__file__).parents[2] / "shared" / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real rows are not at {SHARED}"),
]


def spec_text(model: Path) -> str:
    return f"""
version: 1
name: alpaca
model: {{path: "{model}", dtype: float32}}
tuning: {{method: full}}
data:
  train: {{path: "{SHARED / "alpaca_1k.json"}", format: alpaca}}
  heldout_rows: 24
  template: alpaca
  max_length: 320
  overlong_prompts: drop
space:
  learning_rate: {{values: [1e-4, 3e-3]}}
  batch_size: 8
  max_steps: {{values: [4, 12]}}
  average: {{values: [raw, {{kind: ema, decay: 0.9}}]}}
evaluation:
  harmful:
    path: "{SHARED / "advbench_harmful_behaviors.csv"}"
    columns: {{prompt: goal}}
    rows: 48
    prompt_split: all
  harmless:
    path: "{SHARED / "xstest_prompts.csv"}"
    where: {{label: safe}}
    rows: 32
    prompt_split: all
  keyword_lists: [sweeper, qi2023]
  max_new_tokens: 8
  batch_size: 48
objectives: [heldout_loss, unsafe_rate]
"""


def sweeper(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "sweeper", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_real_rows_and_prompts_run_to_a_front_a_report_and_a_verified_readout(
    tmp_path: Path,
) -> None:
    rows = json.loads((SHARED / "alpaca_1k.json").read_text(encoding="utf-8"))
    texts = [str(value) for row in rows[:300] for value in row.values()]
    build_model(tmp_path / "model", texts, vocabulary=1024, hidden=64, window=512)
    spec = tmp_path / "alpaca.yaml"
    spec.write_text(spec_text(tmp_path / "model"), encoding="utf-8")
    out = tmp_path / "run"
    sweeper("run", spec, "--out", out)
    sweeper("front", out)
    sweeper("report", out)
    assert "1 of 1 bit-equal" in sweeper("verify", out, "--sample", 1).stdout

    run = open_run(out)
    frame = run.frame()
    assert set(frame["status"]) == {"complete"}
    assert set(frame["unsafe_rate.n"]) == {48}
    assert set(frame["over_refusal_rate.n"]) == {32}
    assert set(frame["heldout_loss.n"]) != {0}
    assert "unsafe_rate/qi2023" in frame.columns
    base = frame[frame["role"] == "base"]["heldout_loss"].item()
    assert frame["heldout_loss"].min() < base - 0.3
    counts = run.records[0].provenance["data_counts"]
    assert counts["heldout_rows"] == 24
    assert counts["train_rows"] + counts["dropped_overlong_prompts"] <= 1000 - 24
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "alpaca" in page
    assert len(page) > 100_000
