"""From a data set to training batches: order, augmentation, batches, views."""
