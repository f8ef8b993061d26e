"""The loops of a chapter, for tests. A naive version is written once, in the notebook that explains it; what would only
tire a reader (odd batches, ties, classes that are missing) is compared with it here."""
import ast
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

NOTEBOOKS = Path(__file__).parent.parent/"nbs"


def functions_of(chapter: str,       # such as '08_negatives'
                 *names: str,        # functions and classes that are defined there
                 **known,            # what they use beside each other and the names of the chapter's module
                ) -> SimpleNamespace:
    "These functions, made from the source of the chapter's cells; `ValueError` if one is not there."
    cells = json.loads((NOTEBOOKS/f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    module = import_module(f"apse_nb.{chapter[3:]}")
    space, left = vars(module) | known, set(names)
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] != "code" or not any(f" {name}" in text for name in left):
            continue
        code = "\n".join("" if line.startswith("%") else line for line in text.splitlines())
        for node in ast.parse(code).body:
            if getattr(node, "name", None) in left:
                exec(compile(ast.Module([node], []), chapter, "exec"), space)
                left.remove(node.name)
    if left:
        raise ValueError(f"{chapter} does not define {', '.join(sorted(left))}.")
    return SimpleNamespace(**{name: space[name] for name in names})
