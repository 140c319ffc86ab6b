# Files of bench/
