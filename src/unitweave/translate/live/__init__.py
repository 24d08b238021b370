"""Live translation: speech is translated while somebody is still speaking."""
