# Files of cmd/
