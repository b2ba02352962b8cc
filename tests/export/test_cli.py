from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketlens.errors import PocketlensError
from pocketlens_export import cli, hub
from pocketlens_export.architecture import registered_architecture
from pocketlens_export.cli import export
from pocketlens_export.clip import Weights


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained", "random:0"], "give either --model NAME or --config FILE"),
        (["--model", "ViT-B-32", "--config", "x.json", "--pretrained", "random:0"], "give either"),
        (["--model", "ViT-B-32"], "--pretrained"),
        (["--model", "ViT-B-32", "--pretrained", "random:x"], "expected random:SEED"),
        (["--model", "ViT-B-32", "--pretrained", "random:"], "expected random:SEED"),
        (["--model", "ViT-B-32", "--pretrained", "random:0", "--name", "a@b"], "'a@b' is not made of letters"),
        (["--model", "ViT-B-32", "--pretrained", "random:0", "--name", "../x"], "is not made of letters"),
    ],
)
def test_wrong_calls_exit_with_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "MobileCLIP9", "--pretrained", "random:0"], "no model named 'MobileCLIP9'"),
        (
            ["--model", "ViT-B-32", "--pretrained", "nothing.pt"],
            r"--pretrained nothing.pt: expected a tag of ViT-B-32 \(",
        ),
        (["--config", "none.json", "--pretrained", "random:0"], "none.json cannot be read"),
        (["--model", "MobileCLIP2-S0", "--pretrained", "dfndr2b"], "there is no network; give a local checkpoint"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(hub, "_cached", lambda config: None)
    result = CliRunner().invoke(export, [*arguments, "--out", str(tmp_path / "out")])
    assert isinstance(result.exception, PocketlensError)
    assert "\n" not in str(result.exception)
    with pytest.raises(PocketlensError, match=message):
        raise result.exception
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "pocketlens", "export", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_exports_and_prints_json(configs: Path, exported: Path, tmp_path: Path) -> None:
    arguments = ["--config", str(configs / "tiny.json"), "--pretrained", "random:0", "--out", "out", "--json"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["licence"] == "none (random weights)"
    assert printed["space"]["id"] == json.loads((exported / "tiny" / "model.json").read_text())["space"]["id"]
    assert printed["size_bytes"]["text.onnx"] == (tmp_path / "out" / "text.onnx").stat().st_size
    assert str(tmp_path) not in done.stdout
    assert done.stderr.splitlines()[0] == "loading tiny"
    again = run(*arguments, cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "pocketlens: out exists already; remove it or choose another name\n"
    assert again.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'open_clip', 'onnx', 'timm', 'transformers']))\n"
        "from pocketlens.cli import main; sys.argv = ['pocketlens', 'export', '--help']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--pretrained" in done.stdout


def test_without_the_extra_the_install_line_is_printed() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'open_clip', 'onnx', 'timm', 'transformers']))\n"
        "from pocketlens.cli import main\n"
        "sys.argv = 'pocketlens export --model ViT-B-32 --pretrained random:0 --out x'.split(); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith('is not installed: pip install "pocketlens[export]"\n')


def test_licences() -> None:
    mobile, vit = (registered_architecture(name, None) for name in ("MobileCLIP2-S0", "ViT-B-32"))
    assert cli._licence(mobile, Weights(tag="dfndr2b")) == "Apple ML Research Model Terms of Use (research only)"
    assert cli._licence(mobile, Weights(seed=0)) == "none (random weights)"
    assert cli._licence(mobile, Weights(path=Path("x"))) == "unknown; see the source of the weights"
    assert cli._licence(vit, Weights(tag="laion2b_s34b_b79k")) == "unknown; see the source of the weights"
