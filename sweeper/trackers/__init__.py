"""Experiment trackers: TensorBoard, MLflow and Weights & Biases, through their own clients.

Ray's callbacks for them log one run per Tune trial from scalars of its results. Here a Tune trial is a
pack of trajectories, a result carries whole records, and users compare configurations; so records are
logged instead, one run for each. Everything logged comes from records.jsonl and the training curves, and a
failing tracker never affects the sweep.
"""

from sweeper.trackers.threads import Trackers

__all__ = ["Trackers"]
