"""Random numbers for images: functions of keys, without any generator."""
