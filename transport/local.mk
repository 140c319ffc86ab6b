# Files of transport/
