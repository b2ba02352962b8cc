from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from pocketlens.model import Model
from pocketlens_bench import asymmetric_foreign
from pocketlens_bench.asymmetric_study import LOSSES, MAPS, Study, choose, commands, encode_together, tower_config
from pocketlens_export.align.cli import align
from pocketlens_export.distill.cli import distill
from pocketlens_export.embeddings import encode_pictures
from pocketlens_export.tokens.cli import token_learner
from tests.bench.asymmetric_models import BLUE_BLIND, OTHER, SAME, SHIFTED, write_seeing, write_shades


def silent(what: str, done: int, of: int) -> None:
    """Tell nobody."""


@pytest.fixture
def study(tmp_path: Path) -> Study:
    folders = [tmp_path / name for name in ("pictures", "unseen", "emojicir")]
    return Study("heavy", "heavy-float", folders[0], folders[1], folders[2], (), tmp_path / "work", 1)


def test_the_pictures_of_the_least_hashes_are_chosen(tmp_path: Path) -> None:
    folder = write_shades(tmp_path / "shades", count=4)
    (folder / "red" / "again.png").write_bytes((folder / "red" / "00.png").read_bytes())
    digests = sorted({hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.png")})
    assert [digest for digest, _ in choose(folder, 5)] == digests[:5]
    assert len(choose(folder, 100)) == 12
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == digest for digest, path in choose(folder, 5))


def test_every_command_parses_and_writes_into_the_work_folder(study: Study) -> None:
    groups = {"align": align, "distill": distill, "token-learner": token_learner}
    made = commands(study)
    assert list(made) == ["foreign", *MAPS, *LOSSES, "isa"]
    for name, (program, *arguments) in made.items():
        command = asymmetric_foreign.main
        if program == "pocketlens":
            command, arguments = groups[arguments[1]], arguments[2:]
        with command.make_context(name, arguments) as context:
            assert context.params["out"] == study.work / name


def test_teachers_and_pupils_train_on_as_many_views(study: Study) -> None:
    made = commands(study)
    steps = {name: int(made[name][made[name].index("--steps") + 1]) for name in ("foreign", *LOSSES)}
    assert {2 * steps["foreign"]} == {steps[loss] for loss in LOSSES}
    assert len({made[name][made[name].index("--batch") + 1] for name in steps}) == 1
    light, foreign = tower_config(384), tower_config(512)
    assert light["model_cfg"].pop("embed_dim") != foreign["model_cfg"].pop("embed_dim")
    assert light == foreign


def test_without_a_float_model_there_is_no_token_learner(study: Study) -> None:
    bare = Study(study.heavy, None, study.pictures, study.unseen, study.emojicir, (), study.work, 1)
    assert "isa" not in commands(bare)


def test_encoding_together_gives_what_encoding_alone_gives(tmp_path: Path) -> None:
    folder = write_shades(tmp_path / "shades", count=15)
    (folder / "no-picture.png").write_bytes(b"nothing")
    models = [
        Model.open(write_seeing(tmp_path / "heavy", SAME, name="heavy", reads=True)),
        Model.open(write_seeing(tmp_path / "shifted", SHIFTED, name="shifted", space=OTHER)),
        Model.open(write_seeing(tmp_path / "blind", BLUE_BLIND, name="blind")),
    ]
    told: list[tuple[str, int]] = []

    def note(what: str, done: int, of: int) -> None:
        told.append((what, of))

    encode_together(models, folder, tmp_path / "together", 1, note)
    [(what, files)] = set(told)
    assert (what.endswith("3 models"), files) == (True, 46)
    told.clear()
    encode_together(models, folder, tmp_path / "together", 1, note)
    assert {files for _, files in told} == {1}  # what cannot be read is tried again, and nothing else
    for model in models:
        told.clear()
        alone = encode_pictures(model, folder, cache=tmp_path / "alone", progress=silent, threads=1)
        kept = encode_pictures(model, folder, cache=tmp_path / "together", progress=note, threads=1)
        assert {files for what, files in told if "encoding" in what} == {1}
        assert kept.sha256 == alone.sha256
        np.testing.assert_allclose(kept.vectors, alone.vectors, atol=1e-6)
