"""The options of a launch as sbatch takes them."""

from sweeper.launch.options import Options, walltime_seconds
from sweeper.launch.templates import Raw, Values

CPUS_PER_GPU = 4

LEAD_SECONDS = 300
"""How long before the walltime a sweep is stopped; a quarter of a walltime under 20 minutes."""


def job_cpus(options: Options) -> int | None:
    """The CPUs of each node; None for all that it has."""
    if options.shared and options.cpus_per_node is None:
        return CPUS_PER_GPU * max(1, options.gpus_per_node)
    return options.cpus_per_node


def chosen_by_site(options: Options) -> bool:
    """Whether an option of sbatch says which GPUs a node has, in the place of ours."""
    return any(one.startswith(("--gres", "--gpus")) for one in options.sbatch)


def slurm_values(options: Options) -> Values:
    """The values of `jobs/slurm.sh` and `jobs/slurm_node.sh` that follow from options of Slurm.

    A job has whole nodes, with all of their memory (`--mem=0`), unless `shared`; then it has CPUS_PER_GPU
    for each GPU where nothing is given, and the memory that the site gives by default.
    """
    memory = options.memory or (None if options.shared else "0")
    return {
        "nodes": options.nodes,
        "gpus": 0 if chosen_by_site(options) else options.gpus_per_node,
        "cpus": job_cpus(options),
        "memory": memory and memory.removesuffix("i"),
        "shared": options.shared,
        "partition": options.partition,
        "account": options.account,
        "time": options.time,
        "lead": min(LEAD_SECONDS, walltime_seconds(options.time) // 4),
        "sbatch": Raw("\n".join(f"#SBATCH {option}" for option in options.sbatch)) or None,
    }
