"""`prune --report` and `compare --report`: the page beside the result."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PRUNE = ("--flops", "44%")


def sections(html):
    return re.findall(r'<section id="(\w+)">', html)


def test_the_page_says_what_the_command_prints(run, model_path):
    result = run("prune", model_path, *PRUNE, "--report", "page.html")
    assert result.exit_code == 0, result.stderr
    assert "report: page.html" in result.stderr.splitlines()
    html = Path("page.html").read_text()
    assert sections(html) == ["summary", "layers", "groups", "frozen", "reproduce"]
    proof = next(line for line in result.stdout.splitlines() if line.startswith("proof"))
    assert proof.removeprefix("proof").strip() in html
    assert "predicts no damage" in html and "Proven in onnxruntime" in html
    assert re.search(r"<code>\S+ prune \S+net.onnx --flops 44% --report page.html</code>", html)


def test_samples_add_the_curve_and_what_they_say(run, model_path):
    np.save("images.npy", np.random.default_rng(0).random((40, 3, 4, 4), np.float32))
    result = run("prune", model_path, *PRUNE, "--data", "images.npy", "--samples", "32", "--report", "page.html")
    assert result.exit_code == 0, result.stderr
    html = Path("page.html").read_text()
    assert "damage" in sections(html)
    assert 'class="dot mean"' in html
    assert "cosine" in html and "predicts no damage" not in html


def test_lossless_pruning_has_a_page_too(run, model_path):
    result = run("prune", model_path, "--lossless", "--report", "page.html")
    assert result.exit_code == 0, result.stderr
    html = Path("page.html").read_text()
    assert sections(html) == ["summary", "layers", "groups", "frozen", "reproduce"]
    assert "nothing is dead, constant or a duplicate" in html


def test_files_of_one_name_are_timed_apart(run, model_path):
    Path("out").mkdir()
    words = ("--threads", "1", "--align", "off", "-o", "out/net.onnx", "--report", "page.html")
    result = run("prune", "net.onnx", *PRUNE, *words)
    assert result.exit_code == 0, result.stderr
    html = Path("page.html").read_text()
    table = html[html.index('<section id="latency">') :]
    assert re.findall(r"<th scope=.row.[^>]*>([^<]*net\.onnx)", table) == ["net.onnx", "out/net.onnx"]


def test_without_a_proof_the_page_warns(run, model_path):
    assert run("prune", model_path, *PRUNE, "--no-verify", "--report", "page.html").exit_code == 0
    html = Path("page.html").read_text()
    assert "not proven" in html and "Proven in onnxruntime" not in html


def test_a_dry_run_writes_no_page(run, model_path):
    assert run("prune", model_path, *PRUNE, "--dry-run", "--report", "page.html").exit_code == 0
    assert not Path("page.html").exists()


@pytest.mark.parametrize("how", [PRUNE, ("--lossless",)])
def test_a_page_in_the_way_stops_everything_before_it_begins(run, model_path, how):
    Path("page.html").write_text("mine")
    result = run("prune", model_path, *how, "--report", "page.html")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "'page.html' exists: give --force" in result.stderr
    assert Path("page.html").read_text() == "mine" and not Path("net.pruned.onnx").exists()
    assert run("prune", model_path, *how, "--report", "page.html", "--force").exit_code == 0
    assert sections(Path("page.html").read_text())


@pytest.mark.parametrize("other", ["net.onnx", "out.onnx", "plan.json"])
def test_the_page_takes_no_other_place(run, model_path, other):
    words = ("-o", "out.onnx", "--plan", "plan.json", "--report", other, "--force")
    result = run("prune", "net.onnx", *PRUNE, *words)
    assert result.exit_code == 1
    assert "choose another file for the report" in result.stderr
    assert not Path("out.onnx").exists()


def test_a_comparison_has_layers_agreement_and_gates(run, model_path):
    assert run("prune", model_path, *PRUNE, "-o", "small.onnx").exit_code == 0
    words = ("compare", model_path, "small.onnx", "--max-size", "1kB", "--report", "page.html")
    result = run(*words)
    assert result.exit_code == 3
    assert "report: page.html" in result.stderr.splitlines()
    html = Path("page.html").read_text()
    assert sections(html) == ["summary", "layers", "reproduce"]
    assert "gate failed: the file has" in html and "no data: compared on 16 made-up random inputs" in html
    assert ">comparison</span>" in html and "small.onnx beside" in html
    assert re.search(r"MACs</h3>\s*<p class=\"big\">\N{MINUS SIGN}4\d", html)
    assert run(*words).exit_code == 1, "the page is there"
    assert run(*words, "--force").exit_code == 3
    assert "choose another name" in run(*words[:-1], "small.onnx", "--force").stderr


def test_a_named_target_adds_milliseconds_of_runs_and_layers(run, model_path):
    result = run("prune", model_path, *PRUNE, "--align", "off", "--threads", "1", "--report", "page.html")
    assert result.exit_code == 0, result.stderr
    html = Path("page.html").read_text()
    assert "latency" in sections(html)
    assert "net.pruned.onnx" in html[html.index('id="latency"') :]
    assert len(re.findall(r"<td[^>]*>[\d.]+ → [\d.]+</td>", html)) >= 2
