"""Frontier · federated learning (tag 3096479): who holds which data (`shards`), networks and arms (`tasks`), the closed
forms of a round (`rounds`), the same federation on Flower (`flower`), and the chapter's protocol (`study`)."""
