"""FCN-8s on MobileNetV2 for CamVid.

Command:   kfcn-train --recipe camvid_fcn8s --data-dir CamVid
Data:      CamVid in 11 classes at 360x480, the SegNet split: train (367), val (101)
Hardware:  two cores of an AMD EPYC, no GPU
Time:      53 minutes of training steps, an hour in all
Metric:    mean IoU 71.2, pixel accuracy 93.3, mean accuracy 83.1, frequency-weighted IoU 88.3,
           boundary IoU 22.8 on val; one run, single scale, the best epoch by mean IoU on val

The backbone starts from ImageNet (`--weights FILE` without a network). Published on the split
test of the same data: FCN-8s on VGG16 57.0 mean IoU, 88.0 pixel accuracy; another split, so no
comparison.
"""

SETTINGS = {
    "data": "camvid",
    "arch": "fcn8s",
    "backbone": "mobilenet_v2",
    "crop": (352, 480),
    "class_weights": "sqrt",
    "epochs": 20,
}
