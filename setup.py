"""Installs apse_nb: everything it needs is read from settings.ini, the one place where versions are written."""
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here/"settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
extras = {name: settings[f"{name}_requirements"].split() for name in ("methods", "book", "dev")}
extras["all"] = sorted({*extras["methods"], *extras["book"]})
extras["dev"] += extras["all"]


class SourceDistribution(sdist):
    "With settings.ini, without which nothing can be built from it."

    def make_distribution(self):
        self.filelist.append("settings.ini")
        super().make_distribution()


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(here/"README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    classifiers=["Development Status :: 4 - Beta", "Intended Audience :: Education",
                 "Intended Audience :: Science/Research", "Operating System :: OS Independent",
                 "Programming Language :: Python :: 3",
                 "Programming Language :: Python :: 3 :: Only", "Framework :: Jupyter",
                 "Topic :: Scientific/Engineering :: Artificial Intelligence",
                 "Topic :: Scientific/Engineering :: Image Recognition", "Typing :: Typed"],
    python_requires=f">={settings['min_python']}",
    # Paper tables, measured results, shipped weights and the final notebook travel inside the wheel; in an editable
    # install the same files are found one level above the package.
    packages=[*find_packages(include=["apse_nb", "apse_nb.*"]), "apse_nb.data", "apse_nb.nbs"],
    package_dir={"apse_nb.data": "data", "apse_nb.nbs": "nbs"},
    package_data={"apse_nb": ["py.typed", "static/*", "static/**/*"],
                  "apse_nb.data": ["paper/*", "results/*.csv", "weights/*.safetensors"],
                  "apse_nb.nbs": ["13_reproduce.ipynb"]},
    install_requires=settings["requirements"].split(),
    extras_require=extras,
    entry_points={"console_scripts": settings["console_scripts"].split(),
                  "nbdev": [f"{settings['lib_name']}={settings['lib_name']}._modidx:d"]},
    cmdclass={"sdist": SourceDistribution},
    zip_safe=False,
)
