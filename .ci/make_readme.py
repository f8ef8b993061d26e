"""Writes README.md from nbs/index.ipynb: prose, code cells without `#| hide`, text and Markdown outputs.
Needs no Quarto."""
import re
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
    if any("hide" in d.split() or "default_exp" in d for d in directives):
        continue
    if any("echo:" in d and "false" in d for d in directives):
        cell.metadata["transient"] = {"remove_source": True}
    cell.source = "\n".join(line for line in lines if line not in directives)
    kept.append(cell)
notebook.cells = kept
notebook.metadata["language_info"] = {"name": "python"}
config = Config()
config.NbConvertBase.display_data_priority = ["text/markdown", "text/plain"]
text, _ = MarkdownExporter(config=config).from_notebook_node(notebook)
# images and notebooks are linked as files of the repository; index.ipynb lies in nbs/
text = re.sub(r"\]\((?=[\w./-]+\.(?:ipynb|png|svg|jpg)[)#])", "](nbs/", text)
text = re.sub(r"\n{3,}", "\n\n", text)
(root/"README.md").write_text(text.strip() + "\n", encoding="utf-8")
