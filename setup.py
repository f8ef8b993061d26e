"""Installs apse_nb: everything it needs is read from settings.ini, the one place where versions are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini")
settings = config["DEFAULT"]

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    python_requires=f">={settings['min_python']}",
    # The paper's tables, measured results, shipped weights and the final notebook travel inside the wheel; in an
    # editable install the same files are found one level above the package.
    packages=[*find_packages(include=["apse_nb", "apse_nb.*"]), "apse_nb.data", "apse_nb.nbs"],
    package_dir={"apse_nb.data": "data", "apse_nb.nbs": "nbs"},
    package_data={"apse_nb.data": ["paper/*.csv", "results/*.csv", "weights/*.safetensors", "weights/*.json"],
                  "apse_nb.nbs": ["13_reproduce.ipynb"]},
    install_requires=settings["requirements"].split(),
    extras_require={"dev": settings["dev_requirements"].split()},
    entry_points={"console_scripts": settings["console_scripts"].split(),
                  "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    zip_safe=False,
)
