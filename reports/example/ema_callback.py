# For transformers.Trainer and the trainers of TRL.
# Configuration 431350f56f of sweep miniature, run miniature.
# 225 configurations were compared on the same prompts. Its intervals are not corrected for that.
# Measured over seed 0: heldout_loss 0.1894 (n=1280); rouge_l 0.9896 (95 % interval 0.9251 to 0.9986, n=64); exact_match 0.8438 (95 % interval 0.7357 to 0.9129, n=64); unsafe_rate 3/240 = 1.2 % (95 % interval 0.4 to 3.6 %); over_refusal_rate 0/64 = 0.0 % (95 % interval 0.0 to 5.7 %).
# Verdicts by the keyword list sweeper (43df42273326e280).
# Measured with lm_eval 0.4.13, optuna 5.0.0, peft 0.21.2, ray 2.60.0, rouge-score 0.1.2, sweeper 0.1.0, tokenizers 0.23.3, torch 2.13.0+cpu, transformers 5.23.0; git commit 414abaa8b234.
# Model builtin:miniature/model; loaded with dtype=float32, attn_implementation=sdpa, trained without autocast; the adapter in fp32 (float32).
# Training template chat, test template chat; loss on completions.
# Effective batch 16 = 8 per device x 2 accumulated x 1 device(s). On another number of devices, export again.
# Row order and dropout differ between trainers: expect the numbers within their intervals, not digit for digit. `sweeper export --rows` writes the rows in the order of the sweep.
# The weights are averaged, interpolate(0.15): WITHOUT ema_callback.py BESIDE THIS FILE THE NUMBERS DO NOT HOLD. Pass callbacks=[WeightAveraging()] to the trainer.
# Averaged are the adapter's factors, not their product.

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
# feedback:    like ema, and after every EVERY steps theta is replaced by e.
KIND = 'interpolate'
DECAY = None
WEIGHT = 0.15
EVERY = None


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
        self._average = [value.detach().float().clone() for value in self._weights]

    @torch.no_grad()
    def on_step_end(self, args, state, control, **kwargs):
        if KIND == "interpolate":
            return
        current = [value.detach().float() for value in self._weights]
        torch._foreach_lerp_(self._average, current, 1 - DECAY)
        if KIND == "feedback" and state.global_step % EVERY == 0:
            self._hand_over()

    @torch.no_grad()
    def on_train_end(self, args, state, control, **kwargs):
        if KIND == "interpolate":
            current = [value.detach().float() for value in self._weights]
            self._average = torch._foreach_lerp(current, self._average, WEIGHT)
        if KIND != "feedback":
            self._hand_over()

    def _hand_over(self):
        for value, average in zip(self._weights, self._average, strict=True):
            value.copy_(average)
