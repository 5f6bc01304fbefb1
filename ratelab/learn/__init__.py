"""What teaches: steps worked out with their numbers, and drills that grade what a person wrote."""
