import json

import pytest

from stclip.config import load_config
from stclip.errors import UserError
from stclip.puppet.experiment.provenance import inputs, same_inputs, versions


def test_inputs(tmp_path):
    (tmp_path / "puppet").mkdir()
    (tmp_path / "puppet" / "puppet.json").write_text('{"seed": 3}')
    (tmp_path / "clip.pt").write_bytes(b"abc")
    pairs = ["DATASETS.DATA_DIR", str(tmp_path), "DATASETS.TEST", "puppet"]
    found = inputs(load_config(None, [*pairs, "MODEL.CLIP", str(tmp_path / "clip.pt")]))
    assert found["dataset"] == {"seed": 3}
    assert found["clip_sha256"].startswith("ba7816bf8f01cfea")  # SHA-256 of abc
    assert inputs(load_config(None, pairs))["clip_sha256"] is None


def test_other_inputs_are_refused(tmp_path):
    same_inputs(tmp_path, {"dataset": 1, "clip": "a"})
    same_inputs(tmp_path, {"dataset": 1, "clip": "a"})
    with pytest.raises(UserError, match=r"inputs\.json: .*another clip; choose another output"):
        same_inputs(tmp_path, {"dataset": 1, "clip": "b"})
    (tmp_path / "inputs.json").write_text("[]")
    with pytest.raises(UserError, match="dataset and clip"):
        same_inputs(tmp_path, {"dataset": 1, "clip": "a"})


def test_versions_can_be_written():
    assert {"stclip", "torch", "python", "cores", "date"} <= json.loads(
        json.dumps(versions())
    ).keys()
