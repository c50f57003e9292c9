"""FCN-8s with a feature pyramid on EfficientNet-Lite0 for NYUDv2, from RGB alone.

Command:   kfcn-train --recipe nyudv2_fcn8s_fpn --data-dir NYUDv2
Data:      NYU Depth v2, 40 classes of Gupta et al. at 480x640, the FCN paper's split: train (381),
           val (414); test is not looked at
Hardware:  one core of an Intel Xeon (AVX-512), no GPU, beside other work
Time:      65 minutes of training steps
Metric:    mean IoU 28.1, pixel accuracy 59.8 on val; one run, single scale, the last epoch

One stage from the ImageNet weights that come with the package, 3.72 M parameters, output stride 32.
The net that ships as `nyudv2` went on from there: 20 epochs more on train and val together, at the
same rate, after which no picture is left here to measure it on.
"""

SETTINGS = {
    "arch": "fcn8s-fpn",
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "data": "nyudv2",
    "crop": (256, 352),
    "scale": (0.5, 1.2),
    "epochs": 14,
    "batch_size": 4,
    "learning_rate": 6e-4,
    "class_weights": "sqrt",
    "iou_loss": 1.0,
    "ema": 0.998,
}
