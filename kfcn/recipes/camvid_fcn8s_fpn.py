"""FCN-8s, then its feature pyramid, on MobileNetV2 for CamVid: the best net here.

Command:   kfcn-train --recipe camvid_fcn8s_fpn --data-dir CamVid
Data:      CamVid in 11 classes at 360x480, the SegNet split: train (367), val (101)
Hardware:  @HARDWARE@
Time:      @TIME@
Metric:    @METRIC@

The first stage is the recipe `camvid_fcn8s`. The second grows the pyramid onto it, whose scores
start at zero, with averaged weights; 2.54 M parameters.
"""

from kfcn.recipes.camvid_fcn8s import SETTINGS as FIRST

STAGES = (
    FIRST,
    {**FIRST, "arch": "fcn8s-fpn", "epochs": 18, "learning_rate": 7e-4, "ema": 0.995},
)
