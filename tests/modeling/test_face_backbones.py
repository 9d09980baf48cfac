"""Face recognition networks from the Hub work as backbones: the original config.json, with random weights."""

import json

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification

from hf_smile.inference.onnx_export import export_onnx
from hf_smile.modeling import build_model, load_model

CONVNEXT = {
    "num_classes": 512,
    "pretrained_cfg": {
        "input_size": [3, 112, 112],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 512,
        "pool_size": [7, 7],
        "first_conv": "stem.0",
        "classifier": "head.fc",
    },
    "model_args": {"patch_size": 2},
}
OF_A_VIT = {"fixed_input_size": True, "pool_size": None, "first_conv": "patch_embed.proj", "classifier": "head"}
CONFIGS = {
    "convnext_nano.cosface_ms1mv3": CONVNEXT | {"architecture": "convnext_nano", "num_features": 640},
    "convnext_atto.cosface_ms1mv3": CONVNEXT | {"architecture": "convnext_atto", "num_features": 320},
    "vit_tiny_patch8_112.arcface_ms1mv3": {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 512,
        "num_features": 192,
        "global_pool": "token",
        "pretrained_cfg": CONVNEXT["pretrained_cfg"] | OF_A_VIT,
        "model_args": {"patch_size": 8},
    },
}
PARAMETERS = {  # as published, https://github.com/gau-nernst/timm-face
    "convnext_nano.cosface_ms1mv3": 15_303_712,
    "convnext_atto.cosface_ms1mv3": 3_543_952,
    "vit_tiny_patch8_112.arcface_ms1mv3": 5_512_640,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_face_network_of_the_hub_is_trained_and_loads_everywhere(tmp_path, name):
    source, saved = tmp_path / name, tmp_path / "saved"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIGS[name]))
    torch.manual_seed(0)
    network = timm.create_model(f"local-dir:{source}").eval()  # as timm reads these settings
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    save_file(network.state_dict(), source / "model.safetensors")

    model = build_model(str(source))
    pixel_values = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        features = model.eval().timm_model.forward_features(pixel_values)
        assert torch.allclose(features, network.forward_features(pixel_values), atol=1e-4)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(model(pixel_values=pixel_values).logits, torch.tensor([0, 2])).backward()
    assert all(parameter.grad.any() for parameter in model.parameters()), "every parameter gets a gradient"
    optimizer.step()
    model.save_pretrained(saved)

    plain = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    onnx = onnxruntime.InferenceSession(export_onnx(saved)[0])
    with torch.no_grad():
        expected = model.eval()(pixel_values=pixel_values).logits
        assert expected.shape == (2, 3)
        assert torch.allclose(plain(pixel_values), expected, atol=1e-4)
        assert torch.allclose(
            AutoModelForImageClassification.from_pretrained(saved)(pixel_values).logits, expected, atol=1e-4
        )
        assert torch.allclose(load_model(str(saved))(pixel_values).logits, expected, atol=1e-4)
    assert np.allclose(onnx.run(None, {"pixel_values": pixel_values.numpy()})[0], expected, atol=1e-4)
