"""DICOM: series of slices, pictures, and segmentations (SEG)."""
