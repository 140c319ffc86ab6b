# Tests of control/
