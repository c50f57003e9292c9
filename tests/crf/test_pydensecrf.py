"""Labels against the field's C++ code, which is optional: `pip install pydensecrf2`."""

import numpy as np
import pytest

from kfcn.crf import DenseCRF

dcrf = pytest.importorskip("pydensecrf.densecrf")

NORMALIZATIONS = {
    "after": dcrf.NORMALIZE_AFTER,
    "before": dcrf.NORMALIZE_BEFORE,
    "symmetric": dcrf.NORMALIZE_SYMMETRIC,
    "none": dcrf.NO_NORMALIZATION,
}


def reference(image, logits, weights, normalization):
    """Q (H, W, C) of five iterations at widths 80, 13 and 3."""
    height, width, classes = logits.shape
    field = dcrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(-logits.reshape(-1, classes).T))
    normalization = NORMALIZATIONS[normalization]
    field.addPairwiseGaussian(sxy=3, compat=weights[0], normalization=normalization)
    field.addPairwiseBilateral(
        sxy=80,
        srgb=13,
        rgbim=image.astype(np.uint8),
        compat=weights[1],
        normalization=normalization,
    )
    return np.array(field.inference(5)).T.reshape(height, width, classes)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_labels(scene, normalization):
    image, logits, _ = scene(240, 320, classes=21)
    # Kernels that are not normalised sum to hundreds.
    weights = (0.02, 0.01) if normalization == "none" else (3.0, 5.0)
    layer = DenseCRF(5, 5, 80.0, 13.0, 3.0, *weights, normalization=normalization)
    refined = np.asarray(layer([logits[None], image[None]]))[0]
    expected = reference(image, logits, weights, normalization)
    q = np.exp(refined - refined.max(-1, keepdims=True))
    q /= q.sum(-1, keepdims=True)
    print(normalization, (q.argmax(-1) == expected.argmax(-1)).mean(), np.abs(q - expected).mean())
    assert (q.argmax(-1) == expected.argmax(-1)).mean() >= 0.999
    # Control: the CRF changes more labels than that.
    assert (q.argmax(-1) == logits.argmax(-1)).mean() < 0.99
