"""FCN-32s, then 16s, then 8s on MobileNetV2 for CamVid: the stages of the paper.

Command:   kfcn-train --recipe camvid_fcn32s_16s_8s --data-dir CamVid
Data:      CamVid in 11 classes at 360x480, the SegNet split: train (367), val (101)
Hardware:  two cores of an AMD EPYC, no GPU
Time:      9 minutes of training steps in all
Metric:    mean IoU 60.2 (32s), 65.2 (16s), 67.4 (8s), boundary IoU 10.4, 13.4, 16.1, pixel accuracy
           88.7, 90.3, 91.2 on val; one run, single scale, the best epoch by mean IoU on val

Each stage starts from the net of the one before, its new score layer from zero (Long et al. 2015,
section 4.2). The paper divides the rate by 100 from stage to stage; with AdamW, whose steps do
not shrink with the gradient, the later stages have a third of the first one's. The learning rate
falls to zero within each stage.
"""

_SHARED = {
    "data": "camvid",
    "backbone": "mobilenet_v2",
    "crop": (352, 480),
    "class_weights": "sqrt",
}
STAGES = (
    {**_SHARED, "arch": "fcn32s", "epochs": 10, "learning_rate": 1e-3},
    {**_SHARED, "arch": "fcn16s", "epochs": 5, "learning_rate": 3e-4},
    {**_SHARED, "arch": "fcn8s", "epochs": 5, "learning_rate": 3e-4},
)
