# Files of mount/
