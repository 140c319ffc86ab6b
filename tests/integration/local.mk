# Tests of integration/
