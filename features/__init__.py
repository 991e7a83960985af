"""Stage 1: images in, FeatureCache out.

Reads a labelled data set of photos, writes `dataset/index.csv` and `cache/<key>/`: the outputs of a frozen backbone for
every image and for K augmented copies of every training image, as sharded TFRecords with a manifest.
"""
