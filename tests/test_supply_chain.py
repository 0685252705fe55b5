"""What ubend stands on: every package pinned to one version, and nothing installed that is not asked for by name."""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINNED = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n") if line
    )
}


def needed_by(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    """Collect what a package needs here, and what that needs."""
    key = f"{canonicalize_name(name)}[{','.join(sorted(extras))}]"
    if key in found:
        return
    package = distribution(name)
    found[key] = package.version
    for text in package.requires or ():
        wanted = Requirement(text)
        environments = [{**default_environment(), "extra": extra} for extra in (*extras, "")]
        if wanted.marker is None or any(wanted.marker.evaluate(one) for one in environments):
            needed_by(wanted.name, frozenset(wanted.extras), found)


def closure(*extras: str) -> dict[str, str]:
    found: dict[str, str] = {}
    needed_by("ubend", frozenset({"dev", "roi", "scale", *extras}), found)
    return {key.split("[")[0]: version for key, version in found.items() if not key.startswith("ubend[")}


def test_each_line_pins_one_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.+]*", line) for line in lines)
    assert len(PINNED) == len(lines)


def test_everything_that_is_needed_is_pinned():
    assert sorted(closure().keys() - PINNED.keys()) == []


def test_what_the_site_needs_is_pinned():
    pytest.importorskip("furo", reason="make docs has not installed what the site needs")
    found = closure("docs")
    assert {"furo", "myst-parser"} <= found.keys()
    assert {name: version for name, version in found.items() if version.split("+")[0] != PINNED.get(name)} == {}


def test_what_is_installed_is_what_is_pinned():
    """A difference means that the environment is older than constraints.txt: make clean, then make test."""
    different = {
        name: (version, PINNED[name])
        for name, version in closure().items()
        if version.split("+")[0] != PINNED[name]  # +cpu: which build of torch
    }
    assert different == {}


@pytest.mark.parametrize("name", ["pickle5", "dill", "joblib", "lightning", "pytorch-lightning", "sentry-sdk", "wandb"])
def test_what_runs_code_of_files_or_calls_home_is_not_among_it(name):
    assert name not in closure()
    with pytest.raises(PackageNotFoundError):
        distribution(name)


def make_audit(path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "audit"],
        cwd=ROOT,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("code", "says"), [(0, "no known"), (1, "could not run, or found")])
def test_the_audit_never_stops_the_rest(tmp_path, code, says):
    (tmp_path / "pip-audit").write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/asked"\nexit {code}\n')
    (tmp_path / "pip-audit").chmod(0o755)
    done = make_audit(f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 0
    assert says in done.stdout
    assert "constraints.txt" in (tmp_path / "asked").read_text()


def test_without_pip_audit_it_says_so(tmp_path):
    done = make_audit("/usr/bin:/bin")
    assert done.returncode == 0
    assert "audit: skipped, pip-audit is not here" in done.stdout


def test_the_tests_come_last():
    steps = [
        line for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines() if line.startswith("make")
    ]
    assert steps == [
        "make .venv/.installed-docs .venv-napari/.installed",
        "make --jobs 2 --output-sync lint types docs test-napari audit",
        "make test",
    ]
