"""FCN-32s, then 16s, then 8s on VGG16 for PASCAL VOC with SBD: the settings of the released nets.

Command:   kfcn-train --recipe voc_fcn8s --data-dir VOCdevkit
Data:      VOC 2012 with SBD: train_aug (10,582); VOC 2011 without SBD's training images:
           seg11valid (736)
Hardware:  -
Time:      -
Metric:    not run: needs the ImageNet weights of VGG16, VOC 2011 and 2012, and SBD. Published on
           seg11valid: mean IoU 63.6 (32s), 65.0 (16s), 65.5 (8s)

Settings: Long, Shelhamer, Darrell (CVPR 2015), section 4.3, in the online form of Shelhamer, Long,
Darrell (PAMI 2017), section 4.4, and of the solvers that they released: one whole image a step,
momentum 0.99, a constant rate of 1e-10, 1e-12, 1e-14 in the three stages, weight decay 5e-4
without biases, biases at twice the rate, bilinear kernels fixed, 100,000 steps a stage.

Caffe there sums the loss over the N labelled pixels of the image, here it is their mean:

    Caffe:  v = 0.99 v - rate (N g + decay w)            g: gradient of the mean
    here:   v = 0.99 v - (N rate) (g + (decay / N) w)    the same step

A VOC image of 375x500 has 187,500 pixels, of which some 4 % are void: N = 180,000. So the rates
are 1.8e-5, 1.8e-7 and 1.8e-9, and the decay is 5e-4 / 180,000 = 2.8e-9. (It shrinks a weight by
1e-10 * 5e-4 * 100 = 5e-12 in a step, by 5e-7 in 100,000: next to nothing, in Caffe as here.)

What differs: N is one number here, so that small images weigh as much as large ones; the images
are mirrored and their colours changed at random (the paper saw no gain from mirroring); training
images are train_aug, not SBD's 8,498 alone, so 10 epochs are 105,820 steps; the best epoch on
seg11valid is kept, not the last; and no border of 100 pixels is put around the images.
"""

PIXELS = 180_000

_SHARED = {
    "data": "voc",
    "train_split": "train_aug",
    "val_split": "seg11valid",
    "backbone": "vgg16",
    "weights": "imagenet",
    "learn_middle": False,
    "crop": (0, 0),
    "scale": (1.0, 1.0),
    "batch_size": 1,
    "epochs": 10,
    "optimizer": "sgd",
    "momentum": 0.99,
    "power": 0.0,
    "weight_decay": 5e-4 / PIXELS,
}
STAGES = (
    {**_SHARED, "arch": "fcn32s", "learning_rate": 1e-10 * PIXELS},
    {**_SHARED, "arch": "fcn16s", "learning_rate": 1e-12 * PIXELS},
    {**_SHARED, "arch": "fcn8s", "learning_rate": 1e-14 * PIXELS},
)
