"""FCN-8s with a feature pyramid on EfficientNet-Lite0: people and five animals of PASCAL VOC.

Command:   kfcn-train --recipe voc_animals_fcn8s_fpn --data-dir VOC2012
Data:      VOC 2012 with SBD's masks, the photographs that the Animal Pose set lists, long side at
           most 400; 7 classes, all others background: train_aug (3131), val (345)
Hardware:  one core of an Intel Xeon (AVX-512), no GPU, beside other work
Time:      about 4 hours for both stages
Metric:    mean IoU 73.9 (person 47.2, cat 83.3, cow 72.8, dog 77.8, horse 71.0, sheep 69.5), pixel
           accuracy 94.1 on val; one run, single scale, the last epoch

From the ImageNet weights that come with the package, 3.72 M parameters, output stride 32. This is
the net that ships as `voc_animals`. The second stage goes on with twice the weight of the soft IoU
and a new decay of the rate. Its length is what there was time for: the mean IoU on val was 58.9,
63.7, 66.3, 69.8, 70.6 and 70.9 after the epochs of the first, 70.8, 70.4, 72.1, 73.4 and 73.9 after
those of the second.
"""

_FIRST = {
    "arch": "fcn8s-fpn",
    "backbone": "efficientnet_lite0",
    "weights": "imagenet",
    "data": "voc",
    "classes": "person, cat, cow, dog, horse, sheep",
    "train_split": "train_aug",
    "crop": (288, 288),
    "scale": (0.6, 1.5),
    "epochs": 6,
    "batch_size": 4,
    "learning_rate": 5e-4,
    "class_weights": "sqrt",
    "iou_loss": 1.0,
    "ema": 0.998,
}
STAGES = (
    _FIRST,
    {**_FIRST, "scale": (0.5, 1.5), "epochs": 5, "learning_rate": 4e-4, "iou_loss": 2.0, "seed": 1},
)
