"""Sample images, the index that lists them, a server that hands them out, and the demo that runs the day on them."""
