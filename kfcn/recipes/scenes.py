"""FCN-8s on a narrow MobileNetV2 for the drawn scenes, from nothing: what kfcn-train does alone.

Command:   kfcn-train --recipe scenes
Data:      scenes, drawn while training: train (1,000 pictures), val (100); no files, no network
Hardware:  two cores of an AMD EPYC, shared with other work; no GPU
Time:      11 minutes of training steps
Metric:    mean IoU 85.6, pixel accuracy 95.9, mean accuracy 92.6, frequency-weighted IoU 92.3,
           boundary IoU 45.1 on val; one run, the best epoch by mean IoU on val
"""

SETTINGS = {
    "data": "scenes",
    "backbone": "mobilenet_v2",
    "alpha": 0.35,
    "weights": "none",
    # Small pictures, and nothing to download: trained from nothing in a few minutes.
    "crop": (128, 128),
    "scale": (0.85, 1.2),  # the toys are drawn in all sizes already
    "batch_size": 8,
    "epochs": 12,
    "learning_rate": 6e-3,
}
