"""FCN-32s, then 16s, then 8s on EfficientNet-Lite0 for NYUDv2: the stages of the paper, from RGB.

Command:   kfcn-train --recipe nyudv2_fcn32s_16s_8s --data-dir NYUDv2
Data:      NYU Depth v2, 40 classes of Gupta et al. at 480x640, the FCN paper's split: train (381),
           val (414); test is not looked at
Hardware:  one core of an Intel Xeon (AVX-512), no GPU, beside other work
Time:      58 minutes of training steps: 24, 9 and 24
Metric:    mean IoU 27.0, 27.3, 27.1, pixel accuracy 58.0, 58.7, 58.1 on val; one run, single scale,
           each stage's epoch chosen on 39 of the training pictures
           (a `folder` of the same files; the command as it stands keeps the best on val)

Each stage starts from the net of the one before, its new score layer from zero (Long et al. 2015,
section 4.2). Crop, scales and rate are those of the first stage of `nyudv2_fcn8s_fpn`.
"""

from kfcn.recipes.nyudv2_fcn8s_fpn import FIRST as PYRAMID

_TAKEN = ("backbone", "weights", "data", "crop", "scale", "class_weights")
_SHARED = {name: PYRAMID[name] for name in _TAKEN}
STAGES = (
    {**_SHARED, "arch": "fcn32s", "epochs": 12, "learning_rate": 6e-4},
    {**_SHARED, "arch": "fcn16s", "epochs": 6, "learning_rate": 2e-4},
    {**_SHARED, "arch": "fcn8s", "epochs": 6, "learning_rate": 2e-4},
)
