"""Stage 1: photos in, FeatureCache out.

Reads a labelled data set of photos and writes `dataset/index.csv` and `cache/<key>/`: the outputs of a frozen backbone for
every photo and for K augmented copies of every training photo, as sharded TFRecords with a manifest.
"""
