"""Adds the files of a project to the wheel: dvc.yaml, the stage scripts, the example's settings. Everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
FILES = (
    *("dvc.yaml", "params.yaml", "requirements-example.lock", ".dvcignore", ".dvc/plots/*.json"),
    *("stages/*.py", "tasks/*.yaml", "ablation/*.yaml"),
)
"""The files that become data of the package, in pipeline/project/. MANIFEST.in names them for the source archive."""


class BuildWithProject(build_py):
    """Builds the package with the files of a project in pipeline/project/. An editable install reads them from the repository instead."""

    def run(self) -> None:
        """Copy the package, then the files."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "pipeline" / "project"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier build, with files that have been removed since
        for file in (file for pattern in FILES for file in sorted(ROOT.glob(pattern))):
            copy = folder / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


setup(cmdclass={"build_py": BuildWithProject})
