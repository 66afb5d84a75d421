"""Rules and boards speak only of metrics that are served, and of alerts that the runbook explains.

Skep's own names are read from its sources: a metric that is renamed there fails here.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLE = ROOT / "ansible/roles/monitoring"
NAME = re.compile(r"\bskep_[a-z0-9_]+")
# Of the program that makes backups, which is a template of role backups.
SOURCES = ["control-plane/src", "node-agent/src", "ingress/src"]
# What Prometheus makes of a histogram.
SUFFIXES = ("_bucket", "_sum", "_count")


def served():
    names = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.rs"):
            if path.name != "tests.rs":
                names |= set(NAME.findall(path.read_text()))
    names |= set(NAME.findall((ROOT / "ansible/roles/backups/templates/skep-backup.j2").read_text()))
    return names


def expressions():
    rules = (ROLE / "templates/rules.yml.j2").read_text()
    for line in re.findall(r"expr: >-\n\s+(.*)", rules):
        yield "rules.yml", line
    for path in sorted((ROLE / "files/boards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield path.name, target["expr"]
        for variable in board["templating"]["list"]:
            yield path.name, variable["query"]["query"]


def main():
    known, wrong, used = served(), [], set()
    for where, text in expressions():
        for name in NAME.findall(re.sub(r'"[^"]*"', "", text)):
            base = next((name[: -len(end)] for end in SUFFIXES if name.endswith(end)), name)
            used.add(name)
            if name not in known and base not in known:
                wrong.append(f"{where}: nobody serves {name}")
    alerts = re.findall(r"- alert: (\w+)", (ROLE / "templates/rules.yml.j2").read_text())
    runbook = (ROOT / "docs/runbook.md").read_text()
    headings = set(re.findall(r"^#+ (\w+)$", runbook, re.M))
    wrong += [f"docs/runbook.md does not say what to do about {name}" for name in alerts if name not in headings]
    wrong += [f"docs/runbook.md explains {name}, which there is not" for name in headings - set(alerts) if name.startswith("Skep") and name != "Skep"]
    if len(used) < 30 or len(alerts) < 30:
        wrong.append(f"only {len(used)} names and {len(alerts)} alerts were found: this test does not see them any more")
    print("\n".join(wrong) or f"ok {len(used)} metrics in rules and boards, {len(alerts)} alerts in the runbook")
    sys.exit(bool(wrong))


main()
