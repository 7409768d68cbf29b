"""What offers a client to others: its endpoints, who may use them, and the life of a server."""
