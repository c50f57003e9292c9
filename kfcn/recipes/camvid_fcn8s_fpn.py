"""FCN-8s with a feature pyramid on a dilated MobileNetV2 for CamVid: the best net here.

Command:   kfcn-train --recipe camvid_fcn8s_fpn --data-dir CamVid
Data:      CamVid in 11 classes at 360x480, the SegNet split: train (367), val (101)
Hardware:  one core of an AMD EPYC, no GPU; another run on the other core
Time:      50 to 62 minutes of training steps
Metric:    mean IoU 76.8 (76.6 to 77.1), pixel accuracy 94.9, mean accuracy 85.4,
           frequency-weighted IoU 90.7, boundary IoU 34.8 on val; three runs
           (seeds 0, 1, 2), single scale, the best epoch by mean IoU on val (at most 0.3 above the
           last one); averaged over mirror images and three scales 78.4

One stage from ImageNet (`--weights FILE` without a network), 2.56 M parameters. The backbone's last
stride is removed (output stride 16), the soft IoU of the batch is minimised beside the weighted
cross entropy, and the weights are averaged over some 500 steps. These were chosen on the parts
`fit` and `held` of train (`docs/RESULTS.md`), where a run of 8 epochs differs from the next by a
point; the length of the run was not chosen, but what there was time for.
"""

from kfcn.recipes.camvid_fcn8s import SETTINGS as FCN8S

SETTINGS = {
    **FCN8S,
    "arch": "fcn8s-fpn",
    "output_stride": 16,
    "iou_loss": 2.0,
    "ema": 0.998,
    "epochs": 40,
}
