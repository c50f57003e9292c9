"""What targets need from elsewhere, fetched once into the cache of the user."""
