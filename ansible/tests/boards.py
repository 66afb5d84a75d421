"""Boards are what Grafana takes: names of their own, panels that do not overlap, expressions that Prometheus reads."""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

BOARDS = pathlib.Path(__file__).resolve().parents[1] / "roles/monitoring/files/boards"


def overlaps(one, other):
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def examine(path, board):
    panels = board["panels"]
    if board["uid"] != path.stem:
        yield "its uid is not its file's name"
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "two panels have one id"
    for number, panel in enumerate(panels):
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"'{panel['title']}' is wider than the board"
        for other in panels[number + 1 :]:
            if overlaps(place, other["gridPos"]):
                yield f"'{panel['title']}' and '{other['title']}' overlap"
        for target in panel["targets"]:
            if target["datasource"]["uid"] != "skep-prometheus":
                yield f"'{panel['title']}' asks another source of data than the role makes"


def main():
    wrong, expressions = [], []
    paths = sorted(BOARDS.glob("*.json"))
    for path in paths:
        board = json.loads(path.read_text())
        wrong += [f"{path.name}: {text}" for text in examine(path, board)]
        expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    # promtool reads expressions of rules: each becomes one.
    rules = [{"record": f"board:expression:{n}", "expr": re.sub(r"\$\w+", ".*", e)} for n, e in enumerate(expressions)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"groups": [{"name": "boards", "rules": rules}]}, file)
        file.flush()
        read = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    if read.returncode:
        wrong.append(read.stderr)
    print("\n".join(wrong) or f"ok {len(paths)} boards, {len(expressions)} expressions")
    sys.exit(bool(wrong) or not paths)


main()
