"""Whether a trial fits a machine of a launch, where the sizes of machines are known beforehand."""

from sweeper.errors import LaunchError
from sweeper.launch.options import Options, Target
from sweeper.launch.slurm import CPUS_PER_GPU, chosen_by_site, job_cpus
from sweeper.spec import SweepSpec


def check_trial(spec: SweepSpec, target: Target, options: Options) -> None:
    """Refuse a sweep whose trials need more than a machine has: Ray would wait for one for ever.

    Raises:
        LaunchError: it names the key of the sweep, and the option of the launch.
    """
    compute = spec.compute
    gpus = 0.0 if compute.gpus_per_trial == "auto" else float(compute.gpus_per_trial)
    needs = (
        ("GPU", gpus, *_gpus(target, options)),
        ("CPU", float(compute.cpus_per_trial), _cpus(target, options), "--cpus-per-node"),
    )
    for kind, needed, there, option in needs:
        if there is not None and needed > there:
            raise LaunchError(
                f"a trial needs {needed:g} {kind} on one machine, but each has {there} ({option}); lower "
                f"compute.{kind.lower()}s_per_trial, or raise {option}",
                code="launch.trial_too_large",
                kind=kind,
                needed=needed,
                there=there,
            )


def _gpus(target: Target, options: Options) -> tuple[int | None, str]:
    """The GPUs of a machine, None where unknown, and the option that says so."""
    if target == "skypilot" and options.accelerators is not None:
        return int(options.accelerators.partition(":")[2] or 1), "--accelerators"
    known = target in ("slurm", "kuberay") and not chosen_by_site(options)
    return options.gpus_per_node if known else None, "--gpus-per-node"


def _cpus(target: Target, options: Options) -> int | None:
    """The CPUs of a machine; None where unknown."""
    if target == "slurm":
        return job_cpus(options)
    if target == "kuberay":
        return options.cpus_per_node or CPUS_PER_GPU * max(1, options.gpus_per_node)
    return None
