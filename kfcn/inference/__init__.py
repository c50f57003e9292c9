"""Using a trained net: label maps, evaluation, class heatmaps."""
