"""README and docs/ are run: commands, Python examples, links.

In a `console` block, lines that begin with `$ srr-onnx` are run, and print what is written under them; figures that
depend on the machine aside. The `python` blocks of a page are run as one script after that; one that begins with
`# NAME.py` is written to that file instead, and a `js` block is run by Node; what a page of docs/deployment/ needs may
be missing, then it is skipped. To write new output into the pages: UPDATE_DOCS=1 pytest tests/test_docs.py
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT, blocks, mismatches

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DEPLOYMENT = sorted((ROOT / "docs" / "deployment").glob("*.md"))
PAGES += DEPLOYMENT
PAGES += [ROOT / "models" / "README.md", ROOT / "srr_onnx" / "assets" / "LICENSES.md"]
RUNNABLE = [page for page in PAGES if {"console", "python"} & {language for language, _ in blocks(page)}]
NEEDS = {"openvino.md": "openvino", "opencv.md": "cv2"}
NODE_MODULES = ROOT / "tools" / "deploy" / "node_modules"
# A goal in milliseconds may be missed on a machine that is busy with other tests; the command says so, and fails.
ATTEMPTS = 5
PROGRAM = [sys.executable, "-m", "srr_onnx.cli.main"]


def page_id(page):
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path):
    """A folder with the bundled files where they are in a clone."""
    shutil.copytree(ROOT / "srr_onnx" / "assets", tmp_path / "srr_onnx" / "assets")
    return tmp_path


def run(arguments, folder):
    # The folder has a srr_onnx too; the package has to be found before it.
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "PYTHONSAFEPATH": "1"}
    for _ in range(ATTEMPTS if "--latency" in arguments else 1):
        done = subprocess.run(arguments, cwd=folder, env=paths, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(text, folder):
    if shutil.which("node") is None or not NODE_MODULES.exists():
        pytest.skip("onnxruntime-web is not installed: npm ci --prefix tools/deploy")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    (folder / "example.mjs").write_text(text)
    assert run(["node", "example.mjs"], folder).strip().isdigit()


def comparable(text):
    """Output without what depends on the machine: rounding errors, and the padding that follows from them."""
    text = re.sub(r"relative error \S+", "relative error E", text)
    return [re.sub(r" +", " ", line).strip() for line in text.strip().splitlines()]


def commands(text):
    """Commands of a console block, with the output that is written under each."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    return [tuple(part.split("\n", 1)) for part in parts]


@pytest.mark.parametrize("page", RUNNABLE, ids=page_id)
def test_examples_run_and_print_what_the_page_shows(page, folder):
    if page in DEPLOYMENT and page.name in NEEDS:
        pytest.importorskip(NEEDS[page.name], reason=f"{NEEDS[page.name]} is not installed: make deploy-test has it")
    script = []
    for language, text in blocks(page):
        if language == "console":
            for command, expected in commands(text):
                words = shlex.split(command, comments=True)
                if words[0] != "srr-onnx":
                    continue
                printed = run([*PROGRAM, *words[1:]], folder)
                if expected.strip() and comparable(printed) != comparable(expected):
                    if os.environ.get("UPDATE_DOCS"):
                        page.write_text(page.read_text().replace(f"$ {command}\n{expected}", f"$ {command}\n{printed}"))
                    else:
                        assert printed == expected, command
        elif language == "python":
            name = re.match(r"# (\w+\.py)\n", text)
            if name:
                (folder / name[1]).write_text(text)
            else:
                script.append(text)
        elif language == "js":
            run_script(text, folder)
    (folder / "examples.py").write_text("\n".join(script))
    assert run([sys.executable, "-W", "error", "examples.py"], folder) is not None


def test_readme_shows_the_two_commands_on_its_first_screen():
    first_screen = (ROOT / "README.md").read_text().splitlines()[:30]
    assert any("make demo" in line for line in first_screen)
    assert any("make test" in line for line in first_screen)


def anchors(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(
    ("shape", "value", "wrong"),
    [
        ({"a": "integer"}, {"a": 1}, []),
        ({"a": "integer"}, {"a": True}, ["$.a is True, not integer"]),
        ({"a": "number or null"}, {"a": None}, []),
        ({"a": "integer"}, {}, ["$.a is missing"]),
        ({"a": "integer"}, {"a": 1, "b": 2}, ["$.b is not documented"]),
        ({"NAME": ["integer"]}, {"x": [1, "2"]}, ["$.x[1] is '2', not integer"]),
        ("srr-onnx/plan/1", "srr-onnx/plan/2", ["$ is 'srr-onnx/plan/2' instead of 'srr-onnx/plan/1'"]),
    ],
)
def test_the_check_of_documented_shapes_sees_differences(shape, value, wrong):
    assert mismatches(shape, value) == wrong


def test_no_page_is_left_out():
    assert {"README.md", "docs/commands.md", "docs/plan-file.md"} <= {page_id(page) for page in RUNNABLE}
    assert all(isinstance(page, Path) for page in PAGES)
