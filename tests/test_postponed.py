"""What `import open_clip` brings comes later, and is then the library's own."""

import colorsys
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.encoders import postponed

SCRIPT = """
import json, sys
import engine.encoders
early = [name for name in ("torch._dynamo", "timm", "transformers") if name in sys.modules]

import open_clip, torch, torchvision
tower = open_clip.model._build_vision_tower(
    4, open_clip.model.CLIPVisionCfg(timm_model_name="convnext_atto", image_size=32)
)
try:  # the real class looks for the folder
    open_clip.model.HFTextEncoder("/no/such/folder", 4)
except OSError as error:
    absent = str(error)
torch.use_deterministic_algorithms(True)  # asks whether the device can be compiled for
image, box = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
pooled = torchvision.ops.roi_align(image, box, 1, aligned=True)
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
import transformers
import torch._dynamo.utils
print(json.dumps({
    "early": early,
    "tower": isinstance(tower, TimmModel),
    "absent": absent,
    "pooled": pooled.flatten().tolist(),
    "text tower": isinstance(HFTextEncoder, type),
    "transformers": hasattr(transformers, "CLIPModel"),
    "compiler": torch._dynamo.utils.is_compile_supported("cpu"),
}))
"""


def test_what_few_models_need_comes_with_the_first_of_them():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "/no/such/folder" in said.pop("absent")
    assert said == {
        "early": [],
        "tower": True,
        "pooled": [7.5],
        "text tower": True,
        "transformers": True,
        "compiler": True,
    }


def test_what_else_a_stand_in_is_asked_for_is_the_modules_own():
    stand_in = postponed._StandIn("colorsys", "rgb_to_hsv")
    assert stand_in.hls_to_rgb is colorsys.hls_to_rgb
    assert stand_in.rgb_to_hsv is not colorsys.rgb_to_hsv
    assert stand_in.rgb_to_hsv(0.2, 0.4, 0.4) == colorsys.rgb_to_hsv(0.2, 0.4, 0.4)
    assert not hasattr(stand_in, "__path__")


def test_what_is_absent_here_is_there_for_another_thread():
    absent = postponed._StandIn("colorsys", None)
    with pytest.raises(ImportError, match="colorsys is imported later"):
        _ = absent.hls_to_rgb
    with ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: absent.hls_to_rgb).result() is colorsys.hls_to_rgb
