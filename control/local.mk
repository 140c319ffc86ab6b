# Files of control/
