from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pocketlens

HEAVY = ["torch", "torchvision", "onnx", "open_clip", "transformers", "timm", "onnxruntime", "usearch", "PIL"]
OFFLINE = ["torch", "torchvision", "open_clip", "transformers", "timm", "onnx", "onnxscript"]
RUNTIME = Path(pocketlens.__file__).parent


def python(code: str, *arguments: object) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def loaded_by(code: str, *arguments: object) -> set[str]:
    """Return the top-level modules that are loaded after `code`."""
    listed = "import json, sys; print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    return set(json.loads(python(f"{code}\n{listed}", *arguments).splitlines()[-1]))


def test_importing_loads_no_heavy_module() -> None:
    loaded = loaded_by("import pocketlens; dir(pocketlens); pocketlens.__version__")
    assert "pocketlens" in loaded
    assert loaded.isdisjoint([*HEAVY, "numpy", "tokenizers", "ftfy", "click"])


def test_the_errors_load_no_heavy_module() -> None:
    assert loaded_by("from pocketlens import BadImage, PocketlensError").isdisjoint([*HEAVY, "numpy"])


def test_importing_has_no_side_effects() -> None:
    code = """
import os, sys, warnings, logging, threading
import numpy, PIL.Image, tokenizers, onnxruntime, usearch.index  # NumPy sets filters of its own
before = dict(os.environ), list(warnings.filters), list(logging.root.handlers), list(sys.path)
import pocketlens
pocketlens.Lens, pocketlens.TextEncoder
assert before == (dict(os.environ), list(warnings.filters), list(logging.root.handlers), list(sys.path))
assert threading.active_count() == 1
"""
    assert python(code) == ""


def test_a_text_query_works_without_the_offline_packages(bundle: Path) -> None:
    code = f"""
import sys
for name in {OFFLINE}: sys.modules[name] = None
import pocketlens
with pocketlens.open(sys.argv[1]) as lens: print(lens.search(text="a blue", k=1)[0].id)
"""
    assert python(code, bundle) == "blue.png\n"


def test_indexing_and_searching_by_picture_work_without_the_offline_packages(
    colours: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    for name in ("red.png", "green.png"):
        (tmp_path / "p" / name).write_bytes((pictures / name).read_bytes())
    code = f"""
import sys
for name in {OFFLINE}: sys.modules[name] = None
from pocketlens.cli import main
main()
"""
    python(code, "index", tmp_path / "p", "--out", tmp_path / "b", "--model", colours)
    out = python(code, "search", tmp_path / "b", "--image", pictures / "green.png", "--json", "-k", 1)
    assert json.loads(out)["hits"][0]["id"] == "green.png"


def test_a_plain_text_query_does_not_load_what_it_does_not_need(bundle: Path) -> None:
    code = "import sys, pocketlens\npocketlens.open(sys.argv[1]).search(text='red')"
    assert loaded_by(code, bundle).isdisjoint([*OFFLINE, "ftfy", "click"])


@pytest.mark.parametrize("first", ["onnxruntime", "usearch.index", "pocketlens._native"])
def test_the_native_libraries_bear_both_orders(bundle: Path, first: str) -> None:
    code = f"import sys, {first}, onnxruntime, usearch.index, pocketlens\n"
    code += "print(pocketlens.open(sys.argv[1]).search(text='red', k=2)[1].id)"
    assert python(code, bundle) == "red.png\n"


def test_one_module_fixes_the_order_of_the_native_libraries() -> None:
    importing = {
        path.name: [alias.name for node in ast.walk(ast.parse(path.read_text())) for alias in _imported(node)]
        for path in RUNTIME.glob("*.py")
    }
    natives = {
        name: [m for m in modules if m.startswith(("onnxruntime", "usearch", "numkong"))]
        for name, modules in importing.items()
    }
    assert {name: found for name, found in natives.items() if found} == {
        "_native.py": [
            "onnxruntime",
            "onnxruntime.capi.onnxruntime_pybind11_state",
            "usearch.index",
            "numkong",
        ]
    }


def _imported(node: ast.AST) -> list[ast.alias]:
    if isinstance(node, ast.Import):
        return node.names
    if isinstance(node, ast.ImportFrom) and node.module:
        return [ast.alias(node.module)]
    return []


def test_help_loads_neither_torch_nor_a_native_library() -> None:
    for arguments in (["--help"], ["--version"], ["search", "--help"], ["index", "--help"]):
        code = "import sys\nfrom pocketlens.cli import cli\ncli.main(standalone_mode=False)"
        assert loaded_by(code, *arguments).isdisjoint([*HEAVY, "numpy", "tokenizers"])


def test_the_public_names_are_sorted_and_are_what_the_package_exposes() -> None:
    assert pocketlens.__all__ == sorted(pocketlens.__all__)
    assert set(dir(pocketlens)) == {*pocketlens.__all__, "__version__"}
    for name in pocketlens.__all__:
        assert callable(getattr(pocketlens, name))
    public = {name for name in vars(pocketlens) if not name.startswith("_")}
    modules = {path.stem for path in [*RUNTIME.glob("*.py"), *(path.parent for path in RUNTIME.glob("*/__init__.py"))]}
    assert public - modules - {"annotations", "import_module", "version", "TYPE_CHECKING"} == set()


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    tree = ast.parse((RUNTIME / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    actual = {name: getattr(pocketlens, name) for name in pocketlens.__all__}
    assert imported == {name: f"{value.__module__}.{value.__name__}" for name, value in actual.items()}


def test_a_star_import_and_an_unknown_name() -> None:
    assert python("from pocketlens import *; print(open.__module__, Lens.__name__)") == "pocketlens.lens Lens\n"
    with pytest.raises(AttributeError, match="module 'pocketlens' has no attribute 'nonsense'"):
        pocketlens.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_errors_form_the_tree_that_their_module_draws() -> None:
    assert issubclass(pocketlens.CorruptFile, pocketlens.FormatError)
    assert issubclass(pocketlens.BadQuery, ValueError)
    for name in ("BadImage", "BadQuery", "CorruptFile", "EncoderMismatch", "FormatError", "MissingPart", "Refused"):
        assert issubclass(getattr(pocketlens, name), pocketlens.PocketlensError)
