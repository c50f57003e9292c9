"""FCN-8s with a feature pyramid on EfficientNet-Lite0: people and five animals of PASCAL VOC.

Command:   kfcn-train --recipe voc_animals_fcn8s_fpn --data-dir VOC2012
Data:      VOC 2012 with SBD's masks, the photographs that the Animal Pose set lists, long side at
           most 400; 7 classes, all others background: train_aug (3131), val (345). A folder of
           VOC's layout with these two lists in ImageSets/Segmentation; they do not come with kfcn
Hardware:  one core of an Intel Xeon (AVX-512), the last two stages two cores of an AMD EPYC (AVX2),
           no GPU, beside other work
Time:      about 6 hours for the four stages
Metric:    mean IoU 77.8 (person 50.5, cat 86.9, cow 78.6, dog 82.0, horse 73.9, sheep 77.2), pixel
           accuracy 95.1 on val; one run, single scale, the best epoch of the third stage and the
           last of the fourth

From the ImageNet weights that come with the package, 3.72 M parameters, output stride 32. The net
that ships as `voc_animals` is a mean of five runs of these settings on EfficientNet-Lite2, with
80.2 (docs/how-to/recipes.md). The second stage goes on with twice the weight of the soft IoU
and a new decay of the rate, and the third once more, from that net as it shipped. The mean
IoU on val was 58.9, 63.7, 66.3, 69.8, 70.6 and 70.9 after the epochs of the first, 70.8, 70.4,
72.1, 73.4 and 73.9 after those of the second, 70.6, 74.0, 75.3, 74.0 and 74.7 after those of the
third. There it would have ended: that of the training pictures went on from 72.4 to 78.3. The
fourth has crops as large as most of the pictures, in place of a part or a small picture: 76.6, 77.5
and 77.8.
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
_SECOND = {
    **_FIRST,
    "scale": (0.5, 1.5),
    "epochs": 5,
    "learning_rate": 4e-4,
    "iou_loss": 2.0,
    "seed": 1,
}
_THIRD = {**_SECOND, "seed": 2}
_FULL_SIZE = {
    **_SECOND,
    "crop": (320, 400),
    "scale": (0.75, 1.25),
    "epochs": 3,
    "learning_rate": 2e-4,
    "seed": 3,
}
STAGES = (_FIRST, _SECOND, _THIRD, _FULL_SIZE)
