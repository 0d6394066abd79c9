"""What a user has: volumes, annotations, their files, and the regions they are cut into."""
