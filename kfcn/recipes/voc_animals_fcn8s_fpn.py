"""FCN-8s with a feature pyramid on EfficientNet-Lite0: people and five animals of PASCAL VOC.

Command:   kfcn-train --recipe voc_animals_fcn8s_fpn --data-dir VOC2012
Data:      VOC 2012 with SBD's masks, the photographs that the Animal Pose set lists, long side at
           most 400; 7 classes, all others background: train_aug (3131), val (345)
Hardware:  one core of an Intel Xeon (AVX-512), no GPU, beside other work
Time:      2 hours 18 minutes of training steps
Metric:    mean IoU 70.9 (person 45.0, cat 82.1, cow 65.5, dog 78.3, horse 65.3, sheep 65.2), pixel
           accuracy 93.4 on val; one run, single scale, the last epoch

One stage from the ImageNet weights that come with the package, 3.72 M parameters, output stride 32.
This is the net that ships as `voc_animals`. Its length is what there was time for: the mean IoU on
val was 58.9, 63.7, 66.3, 69.8, 70.6 and 70.9 after its epochs, and more of them will raise it.
"""

SETTINGS = {
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
