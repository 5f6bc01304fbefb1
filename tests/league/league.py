"""Packages of the league, and a run of `ratelab judge` over their variants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ratelab.judge import PROMISES

HOME = Path(__file__).parent

ROOT = HOME.parents[1]

TIME_LIMIT_S = 240
"""Seconds after which the process of a variant is ended."""

AT_ONCE = int(os.environ.get("LEAGUE_JOBS", "2"))
"""Variants that are judged at the same time."""

DISTURBED = ("sleeps in real time", "has not returned")
"""Reasons that a busy machine may cause: such a variant is judged again, alone."""


class Variant(NamedTuple):
    """A strategy of a package, in memory or on a server."""

    package: str
    name: str
    on_store: bool
    adapter: str

    @property
    def target(self) -> str:
        """The target of `ratelab judge`."""
        return f"tests/league/adapters/{self.adapter}.py:{self.name}"

    @property
    def label(self) -> str:
        """The name in a report."""
        name = self.name.removesuffix("_redis").replace("_", " ")
        return f"{name}, Redis" if self.on_store and name != "redis" else name.replace("redis", "Redis")


class Package(NamedTuple):
    """A package with its metadata."""

    name: str
    link: str
    """The documentation that recommends the configuration."""
    configuration: str
    bound: str
    variants: tuple[Variant, ...]
    exempt: dict[str, str]
    """Reasons why promises do not apply, by promise."""
    known: dict[str, dict[str, Any]]
    """Faults that the judge does not look for, by promise: the adapters of the variants, and the reason."""
    unconfirmed: dict[str, list[str]]
    """Adapters of variants with a fault of their own, which the reproduction of the promise does not show."""

    def find_adapter(self, label: str) -> str | None:
        """Return the name of the adapter of a variant."""
        return next((each.name for each in self.variants if each.label == label), None)


def read_packages() -> list[Package]:
    """Return the packages of the league."""
    return [_make_package(**entry) for entry in yaml.safe_load((HOME / "packages.yaml").read_text("utf-8"))]


def _make_package(package: str, link: str, configuration: str, bound: str, **rest: Any) -> Package:
    adapter = rest.get("adapter", package.replace("-", "_"))
    variants = [Variant(package, name, False, adapter) for name in rest.get("memory", ())]
    variants += [Variant(package, name, True, adapter) for name in rest.get("redis", ())]
    notes = [rest.get(name, {}) for name in ("exempt", "known", "unconfirmed")]
    return Package(package, link, configuration, bound, tuple(variants), *notes)


def read_pins() -> dict[str, str]:
    """Return the pinned versions by the name of the package."""
    lines = (HOME / "requirements.txt").read_text("utf-8").splitlines()
    pins = (line.partition(";")[0].strip().split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): pin for name, pin in pins}


def find_version(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def run_league(packages: list[Package], report: Callable[[str], object]) -> Iterator[dict[str, Any]]:
    """Judge every variant of the installed packages, and yield a result for each."""
    variants = []
    for package in packages:
        if find_version(package.name) is None:
            report(f"{package.name}: not installed, skipped")
        else:
            variants += [(package, variant) for variant in package.variants]
    disturbed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for number, ((package, variant), result) in enumerate(
            zip(variants, pool.map(lambda pair: judge_variant(*pair), variants), strict=True), 1
        ):
            report(f"{number}/{len(variants)} {package.name}, {variant.label}: {summarize(result)}")
            if any(reason in str(cell["reason"]) for cell in result["promises"].values() for reason in DISTURBED):
                disturbed.append((package, variant))
            else:
                yield result
    for package, variant in disturbed:
        result = judge_variant(package, variant)
        report(f"again: {package.name}, {variant.label}: {summarize(result)}")
        yield result


def judge_variant(package: Package, variant: Variant) -> dict[str, Any]:
    """Judge a variant in a process of its own, and return what the page needs."""
    command = [sys.executable, "-m", "ratelab", "judge", variant.target, "--json"]
    command += ["--on-store"] if variant.on_store else []
    checked = [name for name in PROMISES if name not in package.exempt]
    command += [f"--promise={name}" for name in checked]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
        judged = {entry["name"]: entry for entry in json.loads(done.stdout)["promises"]}
        cells = {name: {key: judged[name][key] for key in ("kept", "reason")} for name in checked}
    except subprocess.TimeoutExpired:
        cells = _explain(checked, f"not judged within {TIME_LIMIT_S} s")
    except ValueError:
        line = (done.stderr.strip().splitlines() or ["no output"])[-1]
        cells = _explain(checked, f"cannot be judged: {line}")
    return {"package": package.name, "variant": variant.label, "version": find_version(package.name), "promises": cells}


def complete(package: Package, variant: str, cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of all promises: those judged, those exempt, and faults that the judge does not look for."""
    adapter = package.find_adapter(variant)
    known = {
        name: {"kept": False, "reason": fault["reason"]}
        for name, fault in package.known.items()
        if adapter in fault["variants"]
    }
    found = _explain(PROMISES, "not judged") | cells | _explain_each(package.exempt) | known
    return {name: found[name] for name in PROMISES}


def _explain(names: Iterable[str], reason: str) -> dict[str, Any]:
    """Return cells of promises that are not measured for a reason."""
    return _explain_each(dict.fromkeys(names, reason))


def _explain_each(reasons: dict[str, str]) -> dict[str, Any]:
    return {name: {"kept": None, "reason": reason} for name, reason in reasons.items()}


def summarize(result: dict[str, Any]) -> str:
    """Return the broken promises of a result on a line."""
    broken = [name for name, cell in result["promises"].items() if cell["kept"] is False]
    return f"breaks {', '.join(broken)}" if broken else "breaks none"
