"""A PACS by DICOMweb (DICOM PS3.18): find series, fetch one to a folder, send masks back. Needs the extra `pacs`."""
