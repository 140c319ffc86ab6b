# Tests of bench/
