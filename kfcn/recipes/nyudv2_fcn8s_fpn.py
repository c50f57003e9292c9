"""FCN-8s with a feature pyramid on EfficientNet-Lite0 for NYUDv2, from RGB alone.

Command:   kfcn-train --recipe nyudv2_fcn8s_fpn --data-dir NYUDv2
Data:      NYU Depth v2, 40 classes of Gupta et al. at 480x640, the FCN paper's split: train (381),
           val (414); test is not looked at
Hardware:  one core of an AMD EPYC (AVX2), no GPU, beside other work
Time:      about 100 minutes of training steps
Metric:    mean IoU 31.2, mean accuracy 46.7, pixel accuracy 61.7 on val; one run, single scale, the
           last epoch of each stage (the command as it stands keeps the best on val)

From the ImageNet weights that come with the package, 3.87 M parameters, output stride 32. The mean
IoU on val was 27.1, 27.8 and 31.2 after the three stages. 381 pictures are soon learned by heart:
the second stage changes them strongly, which held the mean IoU of the training batches at 36 where
it had been 41. Crops of 256x352 hold a small part of a picture, or a small picture: the net was
better on pictures of three quarters their size (28.3 after the first stage, 28.9 after the second).
The third stage has crops of the size that it is measured at; one epoch of it at 1e-4 reached 29.1.

Five more epochs of the third stage, from its net, reached 31.6.

The net that ships as `nyudv2` had 34 epochs of the first stage, the last 20 of them on train and
val together, and then, on both, 6 of the second and 3, 3 and 8 of the third, at 2e-4, 3e-4 and
3e-4. Then came runs of 3 more at 3e-4 in four rounds, each from a mean of those before
(`kfcn_tools.average`); it is the mean of the four of the last two. No picture is left here to
measure it on; such rounds on train alone went 29.5, 30.4, 31.6, 32.1, 32.4.
"""

FIRST = {
    "arch": "fcn8s-fpn",
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "data": "nyudv2",
    "crop": (256, 352),
    "scale": (0.5, 1.2),
    "epochs": 10,
    "batch_size": 4,
    "learning_rate": 6e-4,
    "class_weights": "sqrt",
    "iou_loss": 1.0,
    "ema": 0.998,
}
_STRONG = {**FIRST, "augment": "strong", "learning_rate": 4e-4, "seed": 1}
_FULL_SIZE = {
    **_STRONG,
    "crop": (480, 640),
    "scale": (0.75, 1.25),
    "epochs": 4,
    "learning_rate": 3e-4,
    "ema": 0.99,
    "seed": 2,
}
STAGES = (FIRST, _STRONG, _FULL_SIZE)
