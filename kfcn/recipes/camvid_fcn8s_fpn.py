"""FCN-8s, then its feature pyramid, on MobileNetV2 for CamVid: the best net here.

Command:   kfcn-train --recipe camvid_fcn8s_fpn --data-dir CamVid
Data:      CamVid in 11 classes at 360x480, the SegNet split: train (367), val (101)
Hardware:  AMD EPYC, no GPU; the second stage on one core twice and on two cores once
Time:      53 minutes for the first stage, 30 to 40 for the second (training steps)
Metric:    mean IoU 73.9 (73.8 to 74.2), pixel accuracy 94.0, mean accuracy 85.1, frequency-weighted
           IoU 89.4, boundary IoU 29.5 on val; three runs of the second stage (seeds 0, 1, 2) from
           one first stage, single scale, the best epoch by mean IoU on val

The first stage is the recipe `camvid_fcn8s`. The second grows the pyramid onto it, whose scores
start at zero, with averaged weights; 2.54 M parameters. The runs were made before the pyramid
enlarged by transposed convolution: it repeated the border where it now fades to zero. The figures
are those of their weights in the net as it is now, 0.02 below what they were.
"""

from kfcn.recipes.camvid_fcn8s import SETTINGS as FIRST

STAGES = (
    FIRST,
    {**FIRST, "arch": "fcn8s-fpn", "epochs": 18, "learning_rate": 7e-4, "ema": 0.995},
)
