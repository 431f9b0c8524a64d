"""Every hyperparameter unchanged, for trainers without an exporter and for people."""

from sweeper.export.header import header, list_digest
from sweeper.export.job import ExportJob, dump


def files(job: ExportJob) -> dict[str, str]:
    """`recommended.yaml`, or `<stem>.yaml` of another configuration: settings and measured values."""
    item, origin = job.candidate, job.origin
    averaging = None if job.averaging is None else job.averaging._asdict()
    values = {
        "sweep": job.spec.name,
        "run": origin.run,
        "config_id": item.config_id,
        "hyperparameters": dict(item.config),
        "batch": job.split._asdict(),
        "averaging": averaging,
        "measured": {
            name: [
                {"seed": seed, "value": m.value, "n": m.n, **({} if m.k is None else {"k": m.k})}
                for seed, m in zip(item.seeds, item.measured(name), strict=True)
            ]
            for name in item.values
        },
        "intervals_95": {name: list(i) for name in item.values if (i := item.interval(name))},
        "verdicts_by": origin.judge or "keyword list",
        "keyword_lists": {
            name: list_digest(item, name) for name in job.spec.evaluation.keyword_lists
        },
        "configurations_compared": origin.compared,
        "versions": dict(item.records[0].provenance.get("versions", {})),
    }
    name = "recommended" if job.origin.recommended else job.stem
    return {f"{name}.yaml": header(job, "any trainer") + dump(values)}
