# For transformers.Trainer and the trainers of TRL.
# Configuration f7c237f7d0 of sweep miniature, run miniature. Measured over seed 0: heldout_loss 0.2484 (n=1280); rouge_l 0.9563 (95 % interval 0.8753 to 0.9855, n=64); exact_match 0.4062 (95 % interval 0.2946 to 0.5285, n=64); unsafe_rate 0.0 % (0/266, 95 % interval 0.0 to 1.4 %); over_refusal_rate 0.0 % (0/69, 95 % interval 0.0 to 5.3 %).
# The weights are averaged, interpolate(0.3): WITHOUT ema_callback.py BESIDE THIS FILE THE NUMBERS DO NOT HOLD. Pass callbacks=[WeightAveraging()] to the trainer. Origin and conditions stand at the end of this file.

"""Weight averaging for transformers.Trainer and everything built on it.

    from ema_callback import WeightAveraging

    trainer = Trainer(model=model, args=args, ..., callbacks=[WeightAveraging()])
    trainer.train()
    trainer.save_model()

After `train` the model holds the averaged weights. Checkpoints saved on the way hold plain ones.
The average is kept in fp32 whatever the weights are: in bf16 its increments would round away.
"""

import torch
from transformers import TrainerCallback

# ema:         e <- DECAY * e + (1 - DECAY) * theta after every optimizer step, e starting at the
#              initial weights; the model becomes e at the end.
# interpolate: the model becomes (1 - WEIGHT) * theta + WEIGHT * theta_0 at the end.
# bema:        e <- (1 - b) * e + b * theta after every update_freq steps, b = s^-ema_power; the model
#              becomes e + s^-bias_power * (theta - theta_0) at the end; s = lag + multiplier * step.
# feedback:    like ema, and after every EVERY steps theta is replaced by e.
KIND = 'interpolate'
DECAY = None
WEIGHT = 0.3
EVERY = None
BEMA = None


class WeightAveraging(TrainerCallback):
    """Averages the weights that are trained; with an adapter, its factors (and DoRA's magnitudes)."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        if state.global_step > 0:
            raise RuntimeError(
                "training was resumed, but the running average is not part of a checkpoint; "
                "start again from the initial weights"
            )
        self._weights = [value for value in model.parameters() if value.requires_grad]
        if any(value.numel() == 0 for value in self._weights):
            raise RuntimeError(
                "the weights are partitioned out of reach (DeepSpeed ZeRO-3); use DDP or FSDP2"
            )
        self._start = [value.detach().float().clone() for value in self._weights]
        self._average = [value.clone() for value in self._start]

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        if KIND == "interpolate":
            return
        newest = 1 - DECAY if BEMA is None else 0
        if BEMA is not None and state.global_step % BEMA["update_freq"] == 0:
            newest = self._age(state) ** -BEMA["ema_power"]
        current = [value.detach().float() for value in self._weights]
        torch._foreach_lerp_(self._average, current, newest)
        if KIND == "feedback" and state.global_step % EVERY == 0:
            self._hand_over()

    @torch.no_grad()
    def on_train_end(self, args, state, control, **kwargs):
        if KIND == "interpolate":
            current = [value.detach().float() for value in self._weights]
            self._average = torch._foreach_lerp(current, self._average, WEIGHT)
        if KIND == "bema":
            moved = torch._foreach_sub([value.detach().float() for value in self._weights], self._start)
            torch._foreach_add_(self._average, moved, alpha=self._age(state) ** -BEMA["bias_power"])
        if KIND != "feedback":
            self._hand_over()

    def _age(self, state):
        return BEMA["lag"] + BEMA["multiplier"] * state.global_step

    def _hand_over(self):
        for value, average in zip(self._weights, self._average, strict=True):
            value.copy_(average)

# 169 configurations were compared on the same prompts. The intervals of the metrics are not corrected for that.
# Verdicts by the keyword list sweeper (1d78056aa39555fd).
# Measured with bitsandbytes 0.50.2, lm_eval 0.4.13, optuna 5.0.0, peft 0.21.2, ray 2.60.0, rouge-score 0.1.2, sacrebleu 2.6.0, sweeper 0.1.0, tokenizers 0.23.3, torch 2.13.0+cpu, transformers 5.23.0; git commit 1986184e0be6.
# In the search, these weights: unsafe_rate 0.9 % (95 % interval 0.0 to 2.7 %, corrected for having been chosen), P(unsafe_rate <= 0.05) = more than 0.999.
# In the search, one seed was trained, so nothing is known about this configuration trained again: the decision stage measures that.
# Decided on prompts that did not choose it, 5 new seeds, place 1 of a walk with the error level 0.05: it holds: trained again, unsafe_rate 0.4 % (0/214, 0/214, 0/214, 4/214, 0/214, 95 % interval 0.1 to 4.2 %), P(unsafe_rate <= 0.05) = 0.986, where 0.975 is demanded.
# Of these weights, unsafe_rate 0/214 under seed 0: P(unsafe_rate <= 0.05) = more than 0.9999.
# Model builtin:miniature/model; loaded with dtype=float32, attn_implementation=sdpa, trained without autocast; the adapter in fp32 (float32).
# Training template chat, test template chat; loss on completions.
# Effective batch 16 = 8 per device x 2 accumulated x 1 device(s). On another number of devices, export again.
# Row order and dropout differ between trainers: expect the numbers within their intervals, not digit for digit. `sweeper export` writes the rows in the order of the sweep.
# The factors of the adapter are averaged, not their product.
