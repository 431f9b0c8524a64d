"""Operations on run folders: open, list, clean, migrate, verify."""
