"""To come."""

from kfcn.data.dataset import Dataset


class Scenes(Dataset):
    """To come."""

    name = "scenes"

    @classmethod
    def splits(cls, data_dir=None):
        return ("train", "val", "test")
