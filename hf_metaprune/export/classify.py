"""Classify photos with an exported model, also on a Raspberry Pi.

Run it with: python classify.py model.onnx photo.jpg
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) < 3:
    sys.exit(__doc__)
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
labels, config = json.loads(metadata["labels"]), json.loads(metadata["preprocessing"])
(_, height, width), squash = config["input_size"], config.get("crop_mode") == "squash"
for path in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    short, edge = min(image.size), int(min(height, width) / config["crop_pct"] + 1e-6)
    size = (width, height) if squash else (int(edge * image.width / short), int(edge * image.height / short))
    image = image.resize(size, getattr(Image.Resampling, config["interpolation"].upper()))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), np.float32) / 255
    pixels = ((pixels - np.float32(config["mean"])) / np.float32(config["std"])).transpose(2, 0, 1)[None]
    logits = session.run(None, {"pixel_values": pixels})[0][0]
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    print(path, *(f"{labels[i]} {probabilities[i]:.1%}" for i in np.argsort(-probabilities)[:3]), sep="\t")
