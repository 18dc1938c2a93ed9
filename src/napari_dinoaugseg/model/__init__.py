"""The network of DINO-AugSeg (arXiv 2601.08078): frozen encoder, WT-Aug, CG-Fuse decoder."""
