"""FCN-8s on ResNet50 for COCO in the 21 classes of VOC, trained as torchvision's FCN is.

Command:   kfcn-train --recipe coco_fcn8s --data-dir coco
Data:      COCO 2017 in the classes of VOC: train (images whose VOC objects cover more than 1,000
           pixels), val (5,000)
Hardware:  -
Time:      -
Metric:    not run: needs COCO 2017 (19 GB) and the ImageNet weights of ResNet50. Published for
           torchvision's fcn_resnet50, the dilated net at stride 8: mean IoU 60.5, pixel accuracy
           91.4 on val

Settings: torchvision, references/segmentation: SGD of momentum 0.9 at a rate of 0.02 for 32 images
(8 GPUs of 4), which falls with the power 0.9 over 30 epochs, weight decay 1e-4, crops of 480x480
at a random scale of 0.5 to 2. Its loss is a mean over the pixels as well, so nothing is converted.

What differs: the net, which has skips and no auxiliary head; biases have no decay and twice the
rate; scales are of the image, not of its shorter side.
"""

SETTINGS = {
    "data": "coco",
    "classes": "voc",
    "arch": "fcn8s",
    "backbone": "resnet50",
    "weights": "imagenet",
    "crop": (480, 480),
    "scale": (0.5, 2.0),
    "batch_size": 32,
    "epochs": 30,
    "optimizer": "sgd",
    "learning_rate": 0.02,
    "momentum": 0.9,
    "power": 0.9,
    "weight_decay": 1e-4,
}
