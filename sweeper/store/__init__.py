"""Files of a run on a disk that may fail: folder, records, lock, journal, retry, mirror."""
