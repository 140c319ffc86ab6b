# Tests of cmd/
