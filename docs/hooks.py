"""What the site gets when it is built: generated pages and tables, and the notebook as a page."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.structure.files import File, Files

HERE = Path(__file__).resolve().parent
PLOTLY = "assets/plotly.min.js"


def _module(name: str) -> ModuleType:
    """A module beside this one; docs/ is no package."""
    found = importlib.util.spec_from_file_location(f"docs_{name}", HERE / f"{name}.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    return module


sys.path.insert(0, str(HERE))  # Where docs/generate.py finds its own modules.
generate = _module("generate")
notebook = _module("notebook")


def on_files(files: Files, config: Any) -> Files:
    """Add every page that is made from the code."""
    import plotly

    for path, write in generate.PAGES.items():
        files.append(File.generated(config, path, content=write()))
    for path in HERE.rglob("*.ipynb"):
        name = str(path.relative_to(HERE).with_suffix(".md"))
        files.append(File.generated(config, name, content=notebook.markdown(path)))
    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    files.append(File.generated(config, PLOTLY, abs_src_path=str(script)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill the placeholders of a hand-written page."""
    return str(generate.filled(markdown))
