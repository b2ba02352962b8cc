from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from pocketlens_bench.asymmetric_models import Entrant
from pocketlens_bench.backbones import BACKBONES, Study, commands, entrants_of, prepare
from pocketlens_bench.backbones_tables import INT8, SHIPPED
from pocketlens_export.architecture import local_architecture
from pocketlens_export.distill.cli import distill
from pocketlens_quantize.cli import quantize
from tests.bench.asymmetric_models import BLUE_BLIND, SAME, write_seeing, write_shades


@pytest.fixture
def study(tmp_path: Path) -> Study:
    heavy = write_seeing(tmp_path / "heavy", SAME, name="heavy", reads=True)
    shipped = write_seeing(tmp_path / "shipped", BLUE_BLIND, name="shipped")
    one, two, three, four, five = (
        tmp_path / name for name in ("pictures", "unseen", "calibration", "emojicir", "work")
    )
    return Study(str(heavy), str(shipped), one, two, three, four, five, BACKBONES, 7, 16, 0.5, 1)


def test_all_backbones_are_trained_and_made_small_by_the_same_commands(study: Study) -> None:
    made = commands(study)
    assert list(made) == [each for name in BACKBONES for each in (name, name + INT8)]
    alike = set()
    for name, arguments in made.items():
        own = name.removesuffix(INT8)
        alike.add((name.endswith(INT8), *(argument.replace(own, "NAME") for argument in arguments)))
        command, given = (quantize, arguments[2:]) if name.endswith(INT8) else (distill, arguments[3:])
        with command.make_context(name, given) as context:
            assert context.params["out"] == study.work / name
    assert len(alike) == 2


def test_towers_differ_in_their_trunk_alone(study: Study) -> None:
    write_shades(study.pictures, count=2)
    digest = prepare(study)
    configs = {name: json.loads((study.work / f"{name}.json").read_text()) for name in BACKBONES}
    trunks = [config["model_cfg"]["vision_cfg"].pop("timm_model_name") for config in configs.values()]
    assert trunks == list(BACKBONES)
    assert all(config == configs[BACKBONES[0]] for config in configs.values())
    assert configs[BACKBONES[0]]["model_cfg"]["embed_dim"] == 4
    assert local_architecture(study.work / f"{BACKBONES[0]}.json", needs_text=False).preprocessing.side == 64
    assert len(list((study.work / "pictures").iterdir())) == 6
    assert prepare(study) == digest


def test_what_was_not_made_takes_no_part(study: Study) -> None:
    write_seeing(study.work / "repvit_m0_9", SAME, name="repvit_m0_9")
    assert [(each.label, each.role) for each in entrants_of(study)] == [
        (study.heavy, "heavy"),
        (SHIPPED, "query"),
        ("repvit_m0_9", "query"),
    ]
    some = dataclasses.replace(study, backbones=("fastvit_t8",))
    assert [type(each) for each in entrants_of(some)] == [Entrant, Entrant]
