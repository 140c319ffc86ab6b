# Tests of cache/
