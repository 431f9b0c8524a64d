"""The picture of the how-to about import: `python docs/picture_imported.py DATA [PNG]`.

DATA is a folder with a CSV file of responses for each learning rate. The chart is the front of the report.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from picture import take

import sweeper

PICTURE = Path(__file__).parent / "assets" / "imported.png"
CHRF = {
    "1e-4": {148: 0.7191, 296: 0.7336, 444: 0.7312, 591: 0.7343},
    "1e-5": {148: 0.6993, 296: 0.7099, 444: 0.7159, 591: 0.7157},
}
"""As published beside the responses, on 942 held-out translations; the untouched model has 0.2002."""

MAP = """
version: 1
kind: csv_folder
name: translation
parameters: {learning_rate: learning_rate}
metrics: {chrf: {column: chrf, direction: maximize, low: 0, high: 1, n: 942}}
responses: {prompt: prompt, response: response}
step: step
base: {file: untouched}
objectives: [chrf, unsafe_rate]
constraints: [{metric: unsafe_rate, max: 0.05}]
"""


def draw(data: Path) -> Any:
    """The chart of the imported run."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        values = [
            f"lora_lr{rate},{rate},{step},{value}"
            for rate, steps in CHRF.items()
            for step, value in steps.items()
        ]
        text = "\n".join(("file,learning_rate,step,chrf", "untouched,,0,0.2002", *values))
        (folder / "values.csv").write_text(text, encoding="utf-8")
        (folder / "map.yaml").write_text(MAP, encoding="utf-8")
        made = sweeper.import_run(
            data, folder / "run", map=folder / "map.yaml", values=folder / "values.csv"
        )
        figure = made.run.plot("front")
    return figure.update_layout(width=1200, height=640, template="plotly_white", font_size=16)


if __name__ == "__main__":
    take(draw(Path(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else PICTURE)
