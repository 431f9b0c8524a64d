"""What a sweep file may say of 4 bits and of 8-bit optimizers, and what its ids make of it."""

from pathlib import Path

import pytest
from support.world import World, spec_text

from sweeper.errors import MissingExtraError, SpecError
from sweeper.model import quantized
from sweeper.model.quantized import check_bitsandbytes
from sweeper.planning import make_plan
from sweeper.setup.prefetch import prefetch
from sweeper.spec import parse_spec, spec_hash
from sweeper.store.folder import RunFolder
from sweeper.sweep.run import run_sweep
from sweeper.task import Tuning

QLORA = ("tuning.method=qlora", "model.dtype=mixed_bf16")
EVERYTHING = Tuning("qlora", 4, 8.0, lora_target_modules=("all-linear",))


def test_ids_are_those_from_before_unless_something_new_is_asked_for(tiny_world: World) -> None:
    plain = make_plan(parse_spec(spec_text(tiny_world)))
    named = make_plan(
        parse_spec(spec_text(tiny_world), overrides=["space.optim=adamw_torch_fused"])
    )
    assert named == plain
    assert all("optim" not in item.values for item in plain.configurations)
    axis = "space.optim={values: [adamw_torch_fused, adamw_8bit]}"
    both = make_plan(parse_spec(spec_text(tiny_world), overrides=[axis]))
    own = {item.config_id: item.values["optim"] for item in both.configurations}
    assert {item.config_id for item in plain.configurations} < set(own)
    assert set(own.values()) == {"adamw_torch_fused", "adamw_8bit"}
    assert {t.trajectory_id for t in plain.trajectories} < {
        t.trajectory_id for t in both.trajectories
    }
    hashes = {
        spec_hash(parse_spec(spec_text(tiny_world), overrides=[item]))
        for item in ("seeds=[0]", "space.optim=adamw_8bit", axis, "tuning.method=qlora")
    }
    assert len(hashes) == 4
    alias = parse_spec(spec_text(tiny_world), overrides=["space.optim=adamw_bnb_8bit"])
    assert alias.optimizers == ("adamw_8bit",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.base_weights=unquantized"], "whose weights are not in 4 bits"),
        ([*QLORA, "compute.gpus_per_trial=2"], "2 GPUs would have to share weights in 4 bits"),
        (
            ["tuning={method: full}", "space.optim=adamw_8bit", "compute.gpus_per_trial=2"],
            "8-bit moments of weights that 2 GPUs share",
        ),
        (["space.optim=adafactor"], "space.optim.* found 'adafactor'"),
        (["space.optim={low: adamw_8bit, high: adamw_torch_fused}"], "a range needs numbers"),
    ],
)
def test_what_4_bits_cannot_do_is_refused(
    tiny_world: World, overrides: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(spec_text(tiny_world), overrides=overrides)


def test_a_missing_package_is_one_message_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: name)
    check_bitsandbytes(EVERYTHING, ["adamw_8bit"])
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    check_bitsandbytes(Tuning("lora"), ["adamw_torch_fused"])
    with pytest.raises(MissingExtraError, match=r"`tuning.method: qlora` needs .*\[qlora\]"):
        check_bitsandbytes(EVERYTHING, ["adamw_torch_fused"])
    with pytest.raises(MissingExtraError, match=r"`optim: paged_adamw_8bit` needs .*\[qlora\]"):
        check_bitsandbytes(Tuning("full"), ["adamw_torch_fused", "paged_adamw_8bit"])


@pytest.mark.parametrize(
    "override", ["tuning.method=qlora", "space.optim={values: [adamw_torch_fused, adamw_8bit]}"]
)
def test_a_missing_package_is_found_before_anything_starts(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    spec = parse_spec(spec_text(tiny_world), overrides=[override])
    with pytest.raises(MissingExtraError, match="sweeper-llm"):
        run_sweep(spec, tmp_path / "run")
    with pytest.raises(MissingExtraError, match="sweeper-llm"):
        prefetch(spec)
    assert RunFolder(tmp_path / "run").read_info() is None
