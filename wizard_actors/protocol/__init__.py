"""What travels between a server and its clients: JSON-RPC 2.0, with prompts, answers and errors in it. Pure."""
