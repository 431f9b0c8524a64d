"""What trackers show of a sweep: TensorBoard, MLflow and Weights & Biases, through their own clients.

Ray's callbacks for them log one run per Tune trial from scalars of its results. Here a Tune trial is a pack
of trajectories, a result carries whole records, and a configuration is what people compare; so records are
logged instead, one run for each. Everything logged follows from records.jsonl and the training curves: a
tracker is a projection, and what becomes of it never touches the sweep.
"""

from sweeper.trackers.threads import Trackers

__all__ = ["Trackers"]
