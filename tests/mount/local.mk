# Tests of mount/
