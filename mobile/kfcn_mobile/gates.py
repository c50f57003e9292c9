"""The kinds of `.tflite` file, the limits that each must keep, and what a missed one is called.

`MODES` is the one table of conversion modes: `kfcn-convert` offers its rows, a bundle may hold no
others, and `kfcn-validate` gates by it. How files are made stands in `kfcn_tools.convert.modes`.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """Smallest shares (0..1) that pass.

    Attributes:
        agreement: over all pixels of all golden images.
        image: over the pixels of each single image; None sets no limit.
        confident: over the pixels whose Keras margin is above 1.
        confidence: the other way round, how far a probability may be from the softmax of the
            Keras logits, on targets that give probabilities; None sets no limit.
    """

    agreement: float
    image: float | None = None
    confident: float = 0.999
    confidence: float | None = None


@dataclass(frozen=True)
class Mode:
    """A kind of `.tflite` file.

    Attributes:
        help: what it is, in a few words.
        limits: what it must keep unless `kfcn-validate` is given others.
        identical: whether its labels must be the same on every target that runs the same file
            with the same kernels, to the last pixel.
    """

    help: str
    limits: Limits
    identical: bool = False


MODES = {
    # Not 1: two classes can tie within rounding.
    "float32": Mode("as trained", Limits(0.9999, confidence=1e-4)),
    "float16": Mode("weights of 16 bits", Limits(0.999)),
    "dynamic": Mode("weights of 8 bits, activations rounded while it runs", Limits(0.99)),
    # Integer arithmetic has one result; where floats are summed, their order may change a label.
    "int8": Mode("8 bits throughout", Limits(0.985, image=0.97), identical=True),
    "mixed": Mode("int8 but for the layers that change the most labels", Limits(0.985, image=0.97)),
}


def limits_for(
    mode: str,
    agreement: float | None = None,
    image: float | None = None,
    confident: float | None = None,
) -> Limits:
    """The limits of a mode, with those replaced that are given."""
    given = {"agreement": agreement, "image": image, "confident": confident}
    return replace(MODES[mode].limits, **{k: v for k, v in given.items() if v is not None})


def failures(result: dict, limits: Limits) -> list[dict]:
    """The limits that one file's result misses.

    Args:
        result: as `kfcn_mobile.validate.validate_model` returns it.
        limits: the smallest shares that pass.

    Returns:
        One `{"gate", "value", "limit", "image"}` for each miss; `image` names the image with the
        lowest agreement (for `confident`: on confident pixels). The gate `identical` counts
        pixels that differ from the first target's: `limit` is 0. It and `confidence` are missed
        by what is above.
    """
    missed = []

    def check(gate, value, limit, image):
        if limit is not None and value is not None and value < limit:
            missed.append({"gate": gate, "value": value, "limit": limit, "image": image})

    worst = min(result["images"], key=lambda image: image["agreement"])
    measured = [image for image in result["images"] if image["confident"] is not None]
    check("agreement", result["agreement"], limits.agreement, worst["name"])
    check("image", worst["agreement"], limits.image, worst["name"])
    if measured:
        unsure = min(measured, key=lambda image: image["confident"])
        check("confident", result["confident"], limits.confident, unsure["name"])
    against = result.get("against_first")
    mode = MODES.get(result.get("mode", ""))
    same = bool(against and against["same_file"] and against["same_kernels"])
    if mode and mode.identical and against and same and against["differing"]:
        missed.append(
            {
                "gate": "identical",
                "value": against["differing"],
                "limit": 0,
                "image": against["image"],
            }
        )
    error = result.get("confidence_error")
    if error and limits.confidence is not None and error["value"] > limits.confidence:
        missed.append({"gate": "confidence", "limit": limits.confidence, **error})
    return missed


def explain(mode: str, failure: dict) -> str:
    """One line for people about a missed limit."""
    if failure["gate"] == "identical":
        differ = "pixel differs" if failure["value"] == 1 else "pixels differ"
        return (
            f"{mode}: {failure['value']} {differ} from the first target's, needs none"
            f" (most in: {failure['image']})"
        )
    if failure["gate"] == "confidence":
        return (
            f"{mode}: a probability is {failure['value']:.1e} off, may be {failure['limit']:.1e}"
            f" (worst image: {failure['image']})"
        )
    what = {
        "agreement": "agreement over all images",
        "image": "agreement of one image",
        "confident": "agreement on confident pixels",
    }[failure["gate"]]
    return (
        f"{mode}: {what} is {failure['value']:.4%}, needs {failure['limit']:.4%}"
        f" (worst image: {failure['image']})"
    )
