"""The files of a run, on storage that may fail: folder, records, lock, journal, retry, mirror."""
