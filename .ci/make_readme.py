"""Writes README.md from nbs/index.ipynb: prose, code cells without `#| hide`, text and Markdown outputs. Needs no Quarto."""
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).parent.parent
notebook = nbformat.read(root/"nbs"/"index.ipynb", 4)
kept = []
for cell in notebook.cells:
    lines = cell.source.splitlines()
    directives = [line for line in lines if line.startswith("#|")] if cell.cell_type == "code" else []
    if any("hide" in d.split() or "default_exp" in d for d in directives): continue
    if any("echo:" in d and "false" in d for d in directives): cell.transient = dict(remove_source=True)
    cell.source = "\n".join(line for line in lines if line not in directives)
    kept.append(cell)
notebook.cells = kept
config = Config()
config.NbConvertBase.display_data_priority = ["text/markdown", "text/plain"]
text, _ = MarkdownExporter(config=config).from_notebook_node(notebook)
# pictures lie beside the notebook; chapters are linked as files of the repository
text = text.replace("](images/", "](nbs/images/").replace(".ipynb)", ".ipynb)").replace("](0", "](nbs/0").replace("](1", "](nbs/1")
(root/"README.md").write_text(text.strip() + "\n", encoding="utf-8")
