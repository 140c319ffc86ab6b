# Tests of policy/
